"""The driver: starts what is ready, publishes nothing itself, writes each cell's record as soon as it is settled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from harness.cells import SweepPlan
from harness.executor import Executor, Outcome
from harness.graph import Stage
from harness.records import Settled, record_of
from results.artifacts import Artifacts, Attempt, new_attempt_id
from results.record import Record

INFRASTRUCTURE_TRIES = 3
POLL_S = 0.5


class State(StrEnum):
    """Where a stage stands."""

    CACHED = "cached"
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    BLOCKED = "blocked"
    """A stage it needs has failed."""


@dataclass
class Progress:
    """What a watcher is shown."""

    states: Mapping[str, State]
    labels: Mapping[str, str]
    running: list[tuple[str, Attempt]] = field(default_factory=list)
    """Label and ledger line of what runs; a stage handed to the executor that has no line yet is queued there."""
    warnings: Sequence[str] = ()
    """What went wrong beside a stage, so far."""

    def count(self) -> Counter[State]:
        return Counter(self.states.values())


Watch = Callable[[Progress], None]


def initial_states(plan: SweepPlan, artifacts: Artifacts, *, retry_failed: bool = False) -> dict[str, State]:
    """Key -> cached, failed (for a reason another try would not mend), blocked by such a failure, or waiting."""
    states: dict[str, State] = {}
    for stage in plan.stages:
        parents = {states[parent.key] for parent in stage.parents.values()}
        if artifacts.manifest(stage.name, stage.key):
            states[stage.key] = State.CACHED
        elif parents & {State.FAILED, State.BLOCKED}:
            states[stage.key] = State.BLOCKED
        elif not retry_failed and artifacts.last_failure(stage.name, stage.key):
            states[stage.key] = State.FAILED
        else:
            states[stage.key] = State.WAITING
    return states


class Driver:
    """Runs a plan to its end. The store is the truth: a driver that starts later goes on where this one stopped."""

    def __init__(
        self,
        plan: SweepPlan,
        artifacts: Artifacts,
        executor: Callable[[], Executor],
        *,
        watch: Watch,
        retry_failed: bool = False,
    ) -> None:
        self.plan, self.artifacts, self.watch = plan, artifacts, watch
        self._make_executor, self._executor = executor, None
        self.states = initial_states(plan, artifacts, retry_failed=retry_failed)
        self.stages: dict[str, Stage] = {stage.key: stage for stage in plan.stages}
        self.labels = {key: stage.label for key, stage in self.stages.items()}
        self.attempts: dict[str, str] = {}
        self.tries: Counter[str] = Counter()
        self.unsettled = list(plan.cells)
        self.records: list[Record] = []
        self.warnings: list[str] = []

    _executor: Executor | None

    def run(self) -> list[Record]:
        """Run every stage that can run; return the cells' records. An executor is started only when one is needed."""
        self._settle()
        try:
            while any(state in (State.WAITING, State.RUNNING) for state in self.states.values()):
                self._start_ready()
                self._collect()
                self._settle()
        finally:
            if self._executor:
                self._executor.close()
        self.watch(self._progress())
        return self.records

    def _start_ready(self) -> None:
        for stage in self._ready():
            attempt = new_attempt_id()
            self.attempts[stage.key] = attempt
            self.tries[stage.key] += 1
            self.states[stage.key] = State.RUNNING
            self._executor = self._executor or self._make_executor()
            mirror = str(self.plan.mirror) if self.plan.mirror else None
            sweep = self.plan.sweep
            job = stage.job(
                self.artifacts.store.url, mirror, attempt, sweep=sweep.name, telemetry=sweep.telemetry.model_dump()
            )
            self._executor.start(replace(job, execution=replace(job.execution, **self._otherwise(stage))))

    def _otherwise(self, stage: Stage) -> Mapping[str, Any]:
        """What the last attempt's failure asks for, in this run or one before: a smaller micro-batch."""
        tried = self.artifacts.attempts(stage.name, stage.key)
        return tried[-1].retry if tried else {}

    def _ready(self) -> list[Stage]:
        """Stages whose parents are all there; one that must run alone waits until nothing else can run."""
        done = (State.CACHED, State.DONE)
        waiting = [stage for key, stage in self.stages.items() if self.states[key] is State.WAITING]
        ready = [s for s in waiting if all(self.states[parent.key] in done for parent in s.parents.values())]
        together = [stage for stage in ready if not stage.execution.alone]
        running = State.RUNNING in self.states.values()
        if together or running:
            alone_runs = any(self.stages[k].execution.alone for k, s in self.states.items() if s is State.RUNNING)
            return [] if alone_runs else together
        return ready[:1]

    def _collect(self) -> None:
        assert self._executor is not None
        for outcome in self._executor.finished(POLL_S):
            self._note_warnings(outcome.key)
            self.states[outcome.key] = self._after(outcome)
        for key, stage in self.stages.items():
            blocked = any(self.states[p.key] in (State.FAILED, State.BLOCKED) for p in stage.parents.values())
            if blocked and self.states[key] is State.WAITING:
                self.states[key] = State.BLOCKED
        self.watch(self._progress())

    def _note_warnings(self, key: str) -> None:
        stage = self.stages[key]
        line = self.artifacts.attempt(stage.name, key, self.attempts[key])
        self.warnings += [f"{stage.label}: {warning}" for warning in (line.warnings if line else ())]

    def _after(self, outcome: Outcome) -> State:
        if outcome.status == "done":
            return State.DONE
        if self._note_failure(self.stages[outcome.key], outcome):
            return State.WAITING
        infrastructure = outcome.failure_class == "infrastructure"
        return State.WAITING if infrastructure and self.tries[outcome.key] < INFRASTRUCTURE_TRIES else State.FAILED

    def _note_failure(self, stage: Stage, outcome: Outcome) -> bool:
        """End the ledger line of a worker that died; True when another attempt should do something otherwise.

        What the executor saw of a gang outranks what one member saw. A worker that the system killed for its memory
        left the next micro-batch in its progress.
        """
        line = self.artifacts.attempt(stage.name, stage.key, self.attempts[stage.key])
        line = line or Attempt(id=self.attempts[stage.key], stage=stage.name, key=stage.key)
        retry = dict(outcome.retry)
        if outcome.failure_class == "out_of_memory" and not retry and "smaller_micro_batch" in line.progress:
            retry = {"micro_batch": int(line.progress["smaller_micro_batch"])}
        if (line.status, line.failure_class, line.retry) != ("failed", outcome.failure_class, retry):
            line.status, line.failure_class, line.reason = "failed", outcome.failure_class, outcome.reason
            line.retry = retry
            self.artifacts.note(line)
        if retry:
            self.warnings.append(f"{stage.label}: {outcome.reason}; goes on with micro_batch {retry['micro_batch']}")
        return bool(retry)

    def _settle(self) -> None:
        """Write the record of every cell of which nothing more will run."""
        moving = (State.WAITING, State.RUNNING)
        for cell in list(self.unsettled):
            if any(self.states[stage.key] in moving for stage in cell.needed):
                continue
            self.unsettled.remove(cell)
            failed = {key for key, state in self.states.items() if state is State.FAILED}
            record, digest = record_of(Settled(plan=self.plan, cell=cell, artifacts=self.artifacts, failed=failed))
            self.artifacts.store.add_record(record, digest)
            self.records.append(record)

    def _progress(self) -> Progress:
        running = []
        for key, state in self.states.items():
            if state is State.RUNNING:
                stage = self.stages[key]
                line = self.artifacts.attempt(stage.name, key, self.attempts[key])
                if line and line.status == "running":
                    running.append((stage.label, line))
        return Progress(states=self.states, labels=self.labels, running=running, warnings=self.warnings)
