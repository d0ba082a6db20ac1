"""From a training stage to its sinks: lines are gathered in batches, and each sink is fed by a thread of its own.

Training never waits for a sink and never fails with one: a sink that raises, or has not taken everything a while after
the stage's end, is dropped with one warning.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from threading import Thread

from harness.engine.telemetry import Meter
from harness.executor import Job
from harness.sinks import Sink, sinks_of
from results.events import Line
from results.store import Store

BATCH_S = 5.0
BATCH_FRACTION = 0.01
"""A batch ends after `BATCH_S` seconds or this fraction of the attempt's time, so that a day has hundreds of them."""
PATIENCE_S = 10.0
"""How long the end of a stage waits for a sink; one that is asked to end has 30 s in all."""


class Recorder:
    """The telemetry of one attempt, on rank 0. Nothing is opened for a stage that does not train."""

    def __init__(self, job: Job, store: Store) -> None:
        self.job, self.store = job, store
        self.meter = Meter(job.execution, job.params.get("recipe", {}).get("precision", "fp32"))
        self.started = self.sent = time.monotonic()
        self.lines: list[Line] = []
        self.lanes: list[_Lane] = []
        self.warnings: list[str] = []

    def __call__(self, point: Mapping[str, float], *, tokens: int, seconds: float, flops_per_token: float) -> None:
        """Take one optimiser step; as in `harness.stage.Telemetry`."""
        self.lines.append(self.meter.line(point, tokens=tokens, seconds=seconds, flops_per_token=flops_per_token))
        now = time.monotonic()
        if now - self.sent >= max(BATCH_S, BATCH_FRACTION * (now - self.started)):
            self._send()
            self.sent = now

    @property
    def numbers(self) -> dict[str, float]:
        """What the live view shows beside the trainer's own numbers."""
        return {} if self.meter.mfu is None else {"mfu": self.meter.mfu}

    def close(self, *, failed: bool) -> None:
        """Give the sinks what is left, and wait a while for them."""
        if self.lines:
            self._send()
        for lane in self.lanes:
            lane.take(failed)
        until = time.monotonic() + PATIENCE_S
        for lane in self.lanes:
            lane.thread.join(max(0.0, until - time.monotonic()))
            if lane.thread.is_alive():
                self._warn(lane.name, f"has not taken everything {PATIENCE_S:.0f} s after the end")

    def _send(self) -> None:
        if not self.lanes:
            self.lanes = [_Lane(name, sink, self._warn) for name, sink in sinks_of(self.job, self.store).items()]
        for lane in self.lanes:
            lane.take(self.lines)
        self.lines = []

    def _warn(self, sink: str, what: str) -> None:
        self.warnings.append(f"telemetry.{sink} {what}; dropped")


class _Lane:
    """One sink and its thread."""

    def __init__(self, name: str, sink: Callable[[], Sink], warn: Callable[[str, str], None]) -> None:
        self.name, self.sink, self.warn = name, sink, warn
        self.queue: SimpleQueue[Sequence[Line] | bool] = SimpleQueue()
        self.thread = Thread(target=self._run, name=f"telemetry-{name}", daemon=True)
        self.thread.start()

    def take(self, what: Sequence[Line] | bool) -> None:
        """A batch; or the end, and whether the stage failed."""
        if self.thread.is_alive():
            self.queue.put(what)

    def _run(self) -> None:
        try:
            sink = self.sink()
            while not isinstance(batch := self.queue.get(), bool):
                sink.write(batch)
            sink.close(failed=batch)
        except Exception as error:
            reason = f"{error}".strip().partition("\n")[0][:200]
            self.warn(self.name, f"failed: {type(error).__name__}: {reason}")
