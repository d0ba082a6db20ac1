"""The student as the method builds it, measured by the harness before anything is spent on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file
from transformers import AutoTokenizer

from harness.sizing import size_card
from harness.stage import BudgetMissed, Context, StageFailure
from methods import student
from methods.fields import settle
from methods.interface import Budget, Method, Plan, Refusal, Statistics
from methods.sizes import size_in

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def run(context: Context) -> Mapping[str, Any]:
    """Write the student's `model/`, its `taps.json` and `plan.json`; return its size card.

    A phase of a staged method starts from the `student` input, where there is one.

    Raises:
        BudgetMissed: the student is outside the tolerance.
        StageFailure: the student's outputs are not finite.
    """
    method = _method(context.params["target"], {**context.params["fields"], **context.params["places"]})
    budget = Budget(**context.params["budget"]) if context.params["budget"] else None
    source = context.inputs["teacher"] / "model"
    teacher = student.load(source)
    phase = context.params.get("phase")
    plan, last = _plan(method, teacher.config, budget, phase)
    before = student.load(context.inputs["student"] / "model") if "student" in context.inputs else teacher
    statistics = _statistics(context, method)
    plan = method.refine(before, plan, statistics)
    model = method.compress(before, plan, seed=context.params["seed"], statistics=statistics)
    if last:
        _check_budget(model, teacher, budget)
    _check_outputs(model)
    student.save(model, context.output / "model", AutoTokenizer.from_pretrained(source))
    taps = [asdict(tap) for tap in method.taps(teacher.config, plan)]
    (context.output / "taps.json").write_text(json.dumps(taps))
    (context.output / "plan.json").write_text(json.dumps(asdict(plan)))
    return size_card(model, teacher, context.output / "model")


def _method(target: str, fields: Mapping[str, Any]) -> Method:
    """The method at `module:Class`, its fields decoded as strictly as the sweep's, its preset filled in."""
    module, _, name = target.partition(":")
    method: Method = TypeAdapter(getattr(import_module(module), name)).validate_json(json.dumps(fields), strict=True)
    return settle(method)


def _plan(method: Method, config: PretrainedConfig, budget: Budget | None, phase: int | None) -> tuple[Plan, bool]:
    """What to build, and whether it is the whole student and not an earlier phase's."""
    plan = method.plan(config, budget)
    if isinstance(plan, Refusal):
        raise StageFailure(plan.reason)
    if phase is None:
        return plan, True
    phases = method.phases(config, plan)
    return phases[phase].plan, phase == len(phases) - 1


def _statistics(context: Context, method: Method) -> Statistics:
    return {name: load_file(context.inputs[name] / "statistic.safetensors") for name in sorted(method.needs)}


def _check_budget(model: PreTrainedModel, teacher: PreTrainedModel, budget: Budget | None) -> None:
    if budget is None:
        return
    size, whole = size_in(budget.unit, model), size_in(budget.unit, teacher)
    if not budget.met_by(size, whole):
        target, unit = budget.target(whole), {"params": "parameters", "macs": "multiply-adds a token"}
        what = f"{size:,} {unit.get(budget.unit, budget.unit)}"
        raise BudgetMissed(f"the student has {what}, {size / target - 1:+.1%} from the {target:,} asked for")


def _check_outputs(model: PreTrainedModel) -> None:
    with torch.no_grad():
        logits = model(input_ids=torch.arange(8)[None] % model.config.vocab_size, use_cache=False).logits
    if not torch.isfinite(logits).all():
        raise StageFailure("the compressed student's outputs are not finite (NaN or infinity)")
