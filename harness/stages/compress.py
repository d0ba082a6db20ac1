"""The student as the method builds it, counted by the harness before anything is spent on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from pydantic import TypeAdapter
from transformers import AutoTokenizer

from harness.sizing import size_card
from harness.stage import BudgetMissed, Context, StageFailure
from methods import student
from methods.interface import Budget, Method, Refusal

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def run(context: Context) -> Mapping[str, Any]:
    """Write the student's `model/`, its `taps.json` and `plan.json`; return its size card.

    Raises:
        BudgetMissed: the student is outside the tolerance.
        StageFailure: the student's outputs are not finite.
    """
    method = _method(context.params["target"], {**context.params["fields"], **context.params["places"]})
    budget = Budget(**context.params["budget"]) if context.params["budget"] else None
    source = context.inputs["teacher"] / "model"
    teacher = student.load(source)
    plan = method.plan(teacher.config, budget)
    if isinstance(plan, Refusal):
        raise StageFailure(plan.reason)
    model = method.compress(teacher, plan, seed=context.params["seed"], statistics={})
    _check_budget(model, teacher, budget)
    _check_outputs(model)
    student.save(model, context.output / "model", AutoTokenizer.from_pretrained(source))
    taps = [asdict(tap) for tap in method.taps(teacher.config, plan)]
    (context.output / "taps.json").write_text(json.dumps(taps))
    (context.output / "plan.json").write_text(json.dumps(asdict(plan)))
    return size_card(model, teacher, context.output / "model")


def _method(target: str, fields: Mapping[str, Any]) -> Method:
    """The method at `module:Class`, its fields decoded as strictly as the sweep's."""
    module, _, name = target.partition(":")
    method: Method = TypeAdapter(getattr(import_module(module), name)).validate_json(json.dumps(fields), strict=True)
    return method


def _check_budget(model: PreTrainedModel, teacher: PreTrainedModel, budget: Budget | None) -> None:
    size, whole = student.count_params(model), student.count_params(teacher)
    if budget is not None and not budget.met_by(size, whole):
        target = budget.target(whole)
        raise BudgetMissed(
            f"the student has {size:,} parameters, {size / target - 1:+.1%} from the {target:,} asked for"
        )


def _check_outputs(model: PreTrainedModel) -> None:
    with torch.no_grad():
        logits = model(input_ids=torch.arange(8)[None] % model.config.vocab_size, use_cache=False).logits
    if not torch.isfinite(logits).all():
        raise StageFailure("the compressed student's outputs are not finite (NaN or infinity)")
