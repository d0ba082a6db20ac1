"""Live progress of a run: a table that redraws on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from harness.driver import Progress, State

PLAIN_EVERY_S = 15.0


def _totals(progress: Progress) -> str:
    count = progress.count()
    done = count[State.DONE] + count[State.CACHED]
    parts = [f"{done}/{len(progress.states)} stages done"]
    if count[State.CACHED]:
        parts[0] += f" ({count[State.CACHED]} cached)"
    running = len(progress.running)
    waiting = count[State.WAITING] + count[State.RUNNING] - running
    numbers = {"running": running, "waiting": waiting, "failed": count[State.FAILED], "blocked": count[State.BLOCKED]}
    return ", ".join(parts + [f"{number} {name}" for name, number in numbers.items() if number])


def _numbers(numbers: dict[str, float]) -> str:
    found = []
    if numbers.get("total"):
        found.append(f"{numbers['done'] / numbers['total']:4.0%}")
    if "tokens_per_s" in numbers:
        found.append(f"{numbers['tokens_per_s']:,.0f} tokens/s")
    if "loss" in numbers:
        found.append(f"loss {numbers['loss']:.3f}")
    if "mfu" in numbers:
        found.append(f"mfu {numbers['mfu']:.0%}")
    return "  ".join(found)


class LiveProgress:
    """`with LiveProgress(console) as watch:` gives the driver's `watch`."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        self.told: set[str] = set()
        self.warned = 0
        self.last = 0.0

    def __enter__(self) -> LiveProgress:
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()

    def __call__(self, progress: Progress) -> None:
        self._tell_ended(progress)
        self._tell_warnings(progress)
        if self.live:
            self.live.update(self._drawing(progress))
        elif progress.running and time.monotonic() - self.last > PLAIN_EVERY_S:
            self.last = time.monotonic()
            running = "; ".join(f"{label} {_numbers(line.progress)}".strip() for label, line in progress.running)
            self.console.print(f"{_totals(progress)}: {running}", highlight=False, soft_wrap=True, markup=False)

    def _tell_ended(self, progress: Progress) -> None:
        words = {State.DONE: "done", State.FAILED: "FAILED"}
        for key, state in progress.states.items():
            if state in words and key not in self.told:
                self.told.add(key)
                self.console.print(f"  {words[state]:6} {progress.labels[key]}", highlight=False, markup=False)

    def _tell_warnings(self, progress: Progress) -> None:
        for warning in progress.warnings[self.warned :]:
            self.console.print(f"  warning {warning}", highlight=False, markup=False)
        self.warned = len(progress.warnings)

    @staticmethod
    def _drawing(progress: Progress) -> Group:
        table = Table.grid(padding=(0, 2))
        for label, line in progress.running:
            table.add_row(Text(label), Text(f"{line.elapsed_s:.0f} s"), Text(_numbers(line.progress)))
        return Group(Text(_totals(progress), style="bold"), table)
