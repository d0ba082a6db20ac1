"""What a plan costs before it runs: training tokens and FLOPs by arithmetic, hours at a stated or measured rate.

FLOPs are 6 per parameter and token, 2 more per parameter of a teacher that helps, except where a recipe's budget is in
FLOPs: there they are counted on the model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from statistics import median
from typing import Any

from harness.cells import SweepPlan
from harness.driver import State
from harness.graph import Stage
from methods.interface import Plan
from results.artifacts import Artifacts
from tasks.interface import Classification

CPU_FLOPS = 3e10
"""Assumed training rate of one CPU core, where the store has measured none."""
GPU_FLOPS = 1e14
"""Assumed training rate of one GPU: about 40 % of an A100's bf16 peak."""


@dataclass(frozen=True, kw_only=True)
class Price:
    """Of one training stage."""

    tokens: int
    flops: float
    worker_hours: float


def prices(plan: SweepPlan, states: dict[str, State], artifacts: Artifacts) -> dict[str, Price]:
    """Key -> price of each training stage that is still to run; fine-tuning counts full-length examples."""
    sizes = _model_sizes(plan)
    teacher = sizes["teacher"]
    rate = measured_rate(artifacts)
    found = {}
    for stage in plan.stages:
        if states[stage.key] is not State.WAITING or "recipe" not in stage.params:
            continue
        size = sizes.get(compressed_key(stage), teacher)
        tokens = _tokens(stage, plan)
        helped = stage.name != "teacher" and "teacher" in stage.parents and _needs_teacher(stage)
        flops = tokens * (stage.flops_per_token or 6 * size + (2 * teacher if helped else 0))
        execution = stage.execution
        speed = GPU_FLOPS * execution.gpus if execution.gpus else (rate or CPU_FLOPS) * execution.cpus
        found[stage.key] = Price(tokens=tokens, flops=flops, worker_hours=flops / speed / 3600)
    return found


def _needs_teacher(stage: Stage) -> bool:
    losses = stage.params["recipe"]["losses"]
    return bool(losses["kd"] or losses["taps"])


def compressed_key(stage: Stage) -> str:
    """Key of the compress stage that a training stage's model came from."""
    parent = stage.parents.get("student") or stage.parents.get("model")
    if parent is None:
        return "teacher"
    return parent.key if parent.name == "compress" else compressed_key(parent)


def _model_sizes(plan: SweepPlan) -> dict[str, int]:
    """Parameters by key of the compress stage, the teacher's under `teacher`."""
    sizes: dict[str, int] = {"teacher": plan.teacher_params}
    for cell in plan.cells:
        if isinstance(cell.solved, Plan):
            sizes[cell.stages["compress"].key] = cell.solved.size
            parts = [stage for stage in cell.needed if "phase" in stage.params]
            sizes |= {stage.key: cell.phases[int(stage.params["phase"])].plan.size for stage in parts}
    return sizes


def _tokens(stage: Stage, plan: SweepPlan) -> int:
    recipe: Any = stage.params["recipe"]
    if "tokens" in recipe:
        return int(recipe["tokens"])
    task = plan.tasks[stage.params["task"]]
    assert isinstance(task, Classification)
    rows = stage.params["train_rows"] or task.train_examples or 0
    rows *= 1 - stage.params.get("held_out", 0)
    return int(rows * recipe["max_length"] * recipe["epochs"])


def measured_rate(artifacts: Artifacts) -> float | None:
    """FLOPs per second and core that CPU training reached in this store, if it has trained anything."""
    rates = []
    for stage in ("teacher", "tune", "distill", "finetune"):
        for manifest in artifacts.manifests(stage):
            result, execution = manifest.result, json.loads(json.dumps(manifest.execution))
            if result.get("train_s") and result.get("flops") and not execution["gpus"]:
                rates.append(result["flops"] / result["train_s"] / execution["cpus"] / execution["workers"])
    return median(rates) if rates else None
