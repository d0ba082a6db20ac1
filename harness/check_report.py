"""What a conformance kit found, as a table for the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

if TYPE_CHECKING:
    from rich.console import RenderableType


class Finding(Protocol):
    """What one check found, of either kit."""

    @property
    def check(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def seconds(self) -> float: ...


AnyFinding = TypeVar("AnyFinding", bound=Finding)


def deliver_report(
    name: str,
    findings: Sequence[AnyFinding],
    seconds: float,
    on: Callable[[AnyFinding], str],
    *,
    as_json: bool,
    output: Path | None,
) -> int:
    """Print what a kit found, as JSON or as `report` draws it, or write it to `output`; 0 where nothing failed."""
    from harness.boards import deliver, drawn

    if as_json:
        text = json.dumps([asdict(cast(Any, finding)) for finding in findings], indent=1) + "\n"
    else:
        text = drawn(report(name, findings, seconds, on))
    deliver(text, output)
    return 1 if any(finding.status == "failed" for finding in findings) else 0


def report(
    name: str, findings: Sequence[AnyFinding], seconds: float, on: Callable[[AnyFinding], str]
) -> RenderableType:
    """One line per check, the failed ones first; then each failure in words, and the total.

    Args:
        on: what a check was run on, such as a tiny teacher.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold")
    for column in ("check", "result", "seconds"):
        table.add_column(column, justify="right" if column == "seconds" else "left", overflow="fold")
    by_check: dict[str, list[AnyFinding]] = {}
    for finding in findings:
        by_check.setdefault(finding.check, []).append(finding)
    for title, group in sorted(by_check.items(), key=lambda each: _rank(each[1])):
        table.add_row(Text(title), _result(group, on), f"{sum(each.seconds for each in group):.2f}")
    words = [
        Text(f"{each.status}  {each.check} [{on(each)}]: {each.message}", style="red" if failed else "dim")
        for failed in (True, False)
        for each in findings
        if each.status == ("failed" if failed else "n/a")
    ]
    held = sum(finding.status != "failed" for finding in findings)
    all_on = ", ".join(dict.fromkeys(map(on, findings)))
    total = Text(f"{name}: {held} of {len(findings)} checks hold on {all_on}; {seconds:.1f} s")
    return Group(table, *words, total)


def _rank(group: Sequence[Finding]) -> int:
    statuses = {finding.status for finding in group}
    return 0 if "failed" in statuses else 1 if "passed" in statuses else 2


def _result(group: Sequence[AnyFinding], on: Callable[[AnyFinding], str]) -> RenderableType:
    from rich.text import Text

    failed = [on(finding) for finding in group if finding.status == "failed"]
    if failed:
        return Text(f"failed on {', '.join(failed)}", style="bold red")
    if all(finding.status == "n/a" for finding in group):
        return Text("n/a", style="dim")
    return Text("passed", style="green")
