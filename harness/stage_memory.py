"""How much memory each training stage of a plan takes per worker, and what to change where there is less."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from harness.cells import CellPlan, SweepPlan
from harness.driver import State
from harness.engine.dropout import set_dropout
from harness.engine.memory import Estimate, Workload, as_trained
from harness.engine.preflight import PROCESS_BYTES, available_bytes, gib, largest_micro, shortage, suggestion
from harness.engine.shares import micro_batch
from harness.engine.without_values import reads_values
from harness.graph import Stage
from harness.meta_models import meta_student, meta_teacher
from harness.pricing import compressed_key
from harness.training_checks import batch_rows, training_stages
from methods import student
from methods.interface import Plan, Tap
from methods.recipe import FineTune, Optimisation, Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Of one training stage."""

    estimate: Estimate
    micro: int
    """Rows of a forward pass."""
    warning: str = ""
    """Why it will not fit, and what to change; empty when it does, or nothing is known of where it runs."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of a global batch, and tokens of the longest."""

    rows: int
    row_tokens: int


def forecasts(plan: SweepPlan, states: Mapping[str, State]) -> dict[str, Forecast]:
    """Key -> forecast of each training stage that is still to run; stages that differ in the seed alone share one."""
    known: dict[str, Forecast | None] = {}
    models = _Models(plan)
    found = {}
    for stage in training_stages(plan):
        if states[stage.key] is not State.WAITING:
            continue
        recipe, execution = stage.params["recipe"], repr(stage.execution)
        same = json.dumps([models.name(stage), "teacher" in stage.parents, recipe, execution], default=dict)
        if same not in known:
            known[same] = _forecast(stage, models)
        forecast = known[same]
        if forecast is not None:
            found[stage.key] = forecast
    return found


def _forecast(stage: Stage, models: _Models) -> Forecast | None:
    """None of a student that cannot run without values."""
    kind = Recipe if stage.name != "finetune" else FineTune
    recipe = kind.model_validate_json(json.dumps(stage.params["recipe"]))
    assert isinstance(recipe, Recipe | FineTune)
    # The rate takes no memory: any will do.
    optimisation = recipe.optimisation(1.0)
    rows, _ = batch_rows(stage)
    batch = Batch(rows=rows, row_tokens=recipe.max_length if isinstance(recipe, FineTune) else recipe.sequence_length)
    taught = stage.name != "teacher" and recipe.losses.needs_teacher and "teacher" in stage.parents
    load = Workload(
        student=models.student(stage, optimisation),
        teacher=models.teacher if taught else None,
        losses=recipe.losses,
        taps=models.taps(stage) if taught and recipe.losses.taps else (),
        batch=batch,
        optimisation=optimisation,
        execution=stage.execution,
        workers=stage.execution.workers,
        predicts_tokens=stage.name != "finetune",
    )
    try:
        return _of(load, micro_batch(batch, stage.execution, stage.execution.workers))
    except RuntimeError as error:
        if reads_values(error):
            return None
        raise


def _of(load: Workload, micro: int) -> Forecast:
    """With `micro` rows in a forward pass, or as many as fit where the stage may choose."""
    limit = _limit(load)
    estimate, chosen = load.estimate(micro), micro
    if limit is not None and estimate.total_bytes > limit and load.execution.micro_batch is None:
        chosen = largest_micro(load, micro, limit) or micro
        estimate = load.estimate(chosen)
    warning = ""
    if limit is not None and estimate.total_bytes > limit:
        warning = f"{shortage(estimate, limit)}; {suggestion(load, chosen, limit)}"
    declared, beside = load.execution.memory_bytes, estimate.host_bytes + PROCESS_BYTES
    if not warning and load.execution.gpus and declared is not None and beside > declared:
        warning = f"needs about {gib(beside)} GiB a worker beside its GPU, memory is {gib(declared)} GiB"
    return Forecast(estimate=estimate, micro=chosen, warning=warning)


def _limit(load: Workload) -> int | None:
    """Bytes for a worker: this machine's, or as declared; None for a GPU that is not here."""
    if load.execution.gpus:
        return int(torch.cuda.mem_get_info()[1]) if torch.cuda.is_available() else None
    declared = load.execution.memory_bytes
    free = available_bytes()
    return free if declared is None else max(0, min(free, declared - PROCESS_BYTES))


class _Models:
    """The models of a sweep on the meta device, each built once, whatever the seed and the recipe."""

    def __init__(self, plan: SweepPlan) -> None:
        self.config = plan.config
        self.teacher = meta_teacher(plan.config)
        self._whole = Plan(size=plan.teacher_params)
        self._planned = _planned(plan)
        self._built: dict[str, PreTrainedModel] = {}

    def name(self, stage: Stage) -> str:
        """What a stage trains."""
        return f"{id(self._plan(stage))} {stage.name == 'finetune'}"

    def _plan(self, stage: Stage) -> Plan:
        found = self._planned.get(compressed_key(stage))
        return found[1] if found else self._whole

    def student(self, stage: Stage, recipe: Optimisation) -> PreTrainedModel:
        """What a stage trains, as its recipe trains it."""
        name = self.name(stage)
        if name not in self._built:
            self._built[name] = self._build(stage)
        set_dropout(self._built[name], recipe.dropout)
        return as_trained(self._built[name], recipe)

    def _build(self, stage: Stage) -> PreTrainedModel:
        plan = self._plan(stage)
        if stage.name != "finetune":
            return meta_teacher(self.config) if plan is self._whole else meta_student(self.config, plan)
        changes, trained = plan.config_changes, plan.trained
        with torch.device("meta"):
            return student.build(self.config, plan.surgery, changes=changes, trained=trained, head="classification")

    def taps(self, stage: Stage) -> tuple[Tap, ...]:
        """What the stage's student is compared in."""
        cell, plan = self._planned[compressed_key(stage)]
        return tuple(cell.contender.method.taps(self.config, plan))


def _planned(plan: SweepPlan) -> dict[str, tuple[CellPlan, Plan]]:
    """Key of a compress stage -> a cell that needs it, and what it builds."""
    found: dict[str, tuple[CellPlan, Plan]] = {}
    for cell in plan.cells:
        if isinstance(cell.solved, Plan):
            found[cell.stages["compress"].key] = cell, cell.solved
            for stage in cell.needed:
                if "phase" in stage.params:
                    found[stage.key] = cell, cell.phases[int(stage.params["phase"])].plan
    return found
