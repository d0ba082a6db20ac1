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
from harness.engine.preflight import PROCESS_BYTES, available_bytes, gib, shortage, suggestion
from harness.engine.trainer import micro_batch
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
    known: dict[str, Forecast] = {}
    models = _Models(plan)
    found = {}
    for stage in training_stages(plan):
        if states[stage.key] is not State.WAITING:
            continue
        recipe, execution = stage.params["recipe"], repr(stage.execution)
        same = json.dumps([models.name(stage), "teacher" in stage.parents, recipe, execution], default=dict)
        if same not in known:
            known[same] = _forecast(stage, models)
        found[stage.key] = known[same]
    return found


def _forecast(stage: Stage, models: _Models) -> Forecast:
    kind = Recipe if stage.name != "finetune" else FineTune
    recipe = kind.model_validate_json(json.dumps(stage.params["recipe"]))
    assert isinstance(recipe, Recipe | FineTune)
    # The rate takes no memory: any will do.
    optimisation = recipe if isinstance(recipe, FineTune) else recipe.optimisation(1.0)
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
    micro = micro_batch(batch, stage.execution, stage.execution.workers)
    estimate = load.estimate(micro)
    return Forecast(estimate=estimate, micro=micro, warning=_warning(load, micro, estimate))


def _warning(load: Workload, micro: int, estimate: Estimate) -> str:
    declared = load.execution.memory_bytes
    if load.execution.gpus:
        if declared is not None and estimate.host_bytes + PROCESS_BYTES > declared:
            return f"needs {gib(estimate.host_bytes + PROCESS_BYTES)} GiB beside its GPU, memory is {gib(declared)} GiB"
        if not torch.cuda.is_available():
            return ""
        limit = torch.cuda.mem_get_info()[1]
    else:
        limit = available_bytes()
        limit = limit if declared is None else min(limit, declared - PROCESS_BYTES)
    if estimate.total_bytes <= limit:
        return ""
    return f"{shortage(estimate, max(0, limit))}; {suggestion(load, micro, limit)}"


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
