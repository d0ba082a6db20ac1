"""Builds a cell's record from what its stages left in the store."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness.cells import CellPlan, SweepPlan
from harness.graph import Stage
from harness.identity import digest
from harness.provenance import environment
from harness.row_sweep import chosen_micro_batches, code_digests, data_read, row_sweep
from results.artifacts import Artifacts, Manifest
from results.record import Cell, Failure, Measured, Record, SizeCard, StageCost, Trial, Tuning
from results.speed_card import SpeedCard

CURVE_POINTS = 60
"""A record keeps this many points of the loss curve; the artifact keeps all."""
REASON_CHARACTERS, LOG_CHARACTERS = 5_000, 50_000
"""A record keeps the start of a reason and the end of a log; the ledger has all."""

RECORDED_EXECUTION = ("workers", "cpus", "gpus", "micro_batch", "zero_stage")
"""What a record keeps of how each stage ran; the manifest keeps all."""


@dataclass(frozen=True, kw_only=True)
class Settled:
    """A cell of which nothing more will run."""

    plan: SweepPlan
    cell: CellPlan
    artifacts: Artifacts
    failed: set[str]
    """Keys of stages that failed in this run or before."""

    def manifest(self, label: str) -> Manifest | None:
        """The manifest of one of the cell's named stages."""
        stage = self.cell.stages.get(label)
        return self.artifacts.manifest(stage.name, stage.key) if stage else None


def record_of(settled: Settled) -> tuple[Record, str]:
    """The record, and a digest that tells this outcome from others of the same cell, in this sweep or another."""
    failure = _failure(settled)
    status = "skipped" if settled.cell.refusal else "failed" if failure else "complete"
    size, speed = settled.manifest("compress"), settled.manifest("profile")
    record = Record(
        row=settled.cell.row,
        sweep=settled.plan.sweep.name,
        cell=_cell(settled),
        status=status,  # type: ignore[arg-type]
        reason=_reason(settled, failure),
        failure=failure,
        measured=list(_measured(settled)),
        size=SizeCard(**size.result) if size else None,
        speed=SpeedCard.model_validate(speed.result) if speed else None,
        costs=[_cost(stage, settled.artifacts) for stage in settled.cell.needed],
        tuning=list(_tuning(settled)),
        curve=_curve(settled),
        stages={label: stage.key for label, stage in named_stages(settled.cell).items()},
        provenance=environment()
        | {"execution": _execution(settled), "created_at": _now(), "vocabulary": settled.plan.config.vocab_size}
        | _made_of(settled),
    )
    failed = sorted(stage.key for stage in settled.cell.needed if stage.key in settled.failed)
    return record, outcome_digest(record, failed)


def outcome_digest(record: Record, failed: Sequence[str] = ()) -> str:
    """What a record's file name ends with; a complete record has no failed stages."""
    return digest([record.sweep, record.row, record.cell.seed, record.status, record.reason, record.stages, failed], 12)


def _made_of(settled: Settled) -> dict[str, Any]:
    """What it takes to make the cell again, and to see what has changed since."""
    cell = settled.cell
    micro_batches = chosen_micro_batches(cell.needed, settled.artifacts)
    return {
        "sweep": row_sweep(settled.plan, cell, micro_batches),
        "data": data_read(settled.plan, cell),
        "code": code_digests(named_stages(cell)),
    }


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _execution(settled: Settled) -> dict[str, dict[str, Any]]:
    """Stage -> where it ran: the worker's hardware, and what it was given of it."""
    found = {}
    for stage in settled.cell.needed:
        if manifest := settled.artifacts.manifest(stage.name, stage.key):
            given = {name: manifest.execution[name] for name in RECORDED_EXECUTION if manifest.execution.get(name)}
            found[stage.name] = given | {"hardware": manifest.environment["hardware"]}
    return found


def _cell(settled: Settled) -> Cell:
    cell = settled.cell
    return Cell(
        teacher=settled.plan.sweep.teacher.name,
        method=cell.contender.name,
        fields=dict(cell.contender.fields),
        budget=str(cell.budget) if cell.budget else None,
        recipe=cell.recipe_kind,
        recipe_digest=digest(cell.recipe.model_dump() if cell.recipe else None, 8),
        seed=cell.seed,
        control=cell.control,
    )


def _reason(settled: Settled, failure: Failure | None) -> str:
    if settled.cell.refusal:
        return settled.cell.refusal
    return f"{failure.stage}: {failure.reason}" if failure else ""


def _failure(settled: Settled) -> Failure | None:
    for stage in settled.cell.needed:
        if stage.key not in settled.failed:
            continue
        attempts = [a for a in settled.artifacts.attempts(stage.name, stage.key) if a.status == "failed"]
        last = attempts[-1]
        reason, log_tail = _text(last.reason)[:REASON_CHARACTERS], _text(last.log_tail)[-LOG_CHARACTERS:]
        return Failure(stage=stage.label, failure_class=last.failure_class, reason=reason, log_tail=log_tail)
    return None


def _text(text: str) -> str:
    """What JSON can hold: file names that are no UTF-8 leave halves of surrogate pairs in messages."""
    return text.encode("utf-8", "replace").decode()


def _measured(settled: Settled) -> Iterator[Measured]:
    for name, task in settled.plan.tasks.items():
        for label, when in ((name, "final"), (f"{name} before", "before_training")):
            manifest = settled.manifest(label)
            if manifest is None:
                continue
            items = manifest.files.get("items.parquet")
            home = settled.artifacts.home(manifest.stage, manifest.key)
            for place, metric in enumerate(task.metrics):
                yield Measured(
                    protocol=name,
                    metric=metric.name,
                    value=manifest.result["metrics"][metric.name],
                    unit=metric.unit,
                    higher_is_better=metric.higher_is_better,
                    main=place == 0,
                    when=when,  # type: ignore[arg-type]
                    data=settled.cell.stages[label].data,
                    settings=settled.plan.settings.get(name, ""),
                    items_path=f"{home}/{manifest.attempt}/items.parquet" if items else None,
                    items_sha256=items["sha256"] if items else None,
                    stage_key=manifest.key,
                )


def _cost(stage: Stage, artifacts: Artifacts) -> StageCost:
    """All attempts count, the failed and the killed too."""
    attempts = artifacts.attempts(stage.name, stage.key)
    manifest = artifacts.manifest(stage.name, stage.key)
    result: Any = manifest.result if manifest else {}
    return StageCost(
        stage=stage.name,
        key=stage.key,
        worker_s=sum(attempt.elapsed_s * attempt.workers for attempt in attempts),
        tokens=result.get("tokens", 0),
        flops=result.get("flops", 0.0),
        attempts=max(1, len(attempts)),
    )


def _tuning(settled: Settled) -> Iterator[Tuning]:
    """The trials that have a result, and the rate that the training after them took."""
    named = [(name, settled.cell.stages[name]) for name in settled.plan.tasks if name in settled.cell.stages]
    trainings = [("", each) for each in settled.cell.needed if each.name == "distill"]
    for task, stage in trainings + named:
        tried = [parent for role, parent in stage.parents.items() if role.startswith("trial ")]
        if tried:
            trials = [settled.artifacts.manifest(each.name, each.key) for each in tried]
            trained = settled.artifacts.manifest(stage.name, stage.key)
            yield Tuning(
                task=task,
                trials=[Trial(**{k: v for k, v in m.result.items() if k in Trial.model_fields}) for m in trials if m],
                learning_rate=trained.result["learning_rate"] if trained else None,
            )


def _curve(settled: Settled) -> list[dict[str, float]]:
    """The loss from the first step to the last; a staged method's phases one after the other, counted on."""
    if settled.manifest("distill") is None:
        return []
    points: list[dict[str, float]] = []
    for stage in (each for each in settled.cell.needed if each.name == "distill"):
        manifest = settled.artifacts.manifest("distill", stage.key)
        assert manifest is not None, "a phase was trained before the one after it"
        path = f"{settled.artifacts.home('distill', stage.key)}/{manifest.attempt}/curve.json"
        before = {name: points[-1][name] if points else 0 for name in ("step", "tokens")}
        phase: list[dict[str, float]] = json.loads(settled.artifacts.store.read_bytes(path))
        points += [point | {name: point[name] + count for name, count in before.items()} for point in phase]
    stride = max(1, len(points) // CURVE_POINTS)
    return [*points[::stride], points[-1]] if (len(points) - 1) % stride else points[::stride]


def named_stages(cell: CellPlan) -> dict[str, Stage]:
    """Label -> stage, of those that a record names."""
    shared = {stage.name: stage for stage in cell.needed if stage.name in ("teacher", "corpus", "tokens")}
    return shared | dict(cell.stages)
