"""The student as compressed, with what the method replaced drawn at random: the control of its decomposition."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from typing import Any

from transformers import AutoTokenizer

from harness.sizing import size_card
from harness.stage import Context
from methods import student
from methods.interface import Plan
from methods.random_factors import redraw
from methods.student_config import surgery_of


def run(context: Context) -> Mapping[str, Any]:
    """Write `model/`, `taps.json` and `plan.json` as `compress` does; return the size card.

    In a later phase of a staged method, only what the `student` input does not have yet is drawn.
    """
    source = context.inputs["compressed"]
    model = student.load(source / "model")
    teacher = student.load(context.inputs["teacher"] / "model")
    plan = Plan(**json.loads((source / "plan.json").read_text()))
    before = student.load(context.inputs["student"] / "model") if "student" in context.inputs else teacher
    redraw(model, plan, seed=context.params["seed"], carried=surgery_of(before.config))
    student.save(model, context.output / "model", AutoTokenizer.from_pretrained(source / "model"))
    for name in ("taps.json", "plan.json"):
        shutil.copy(source / name, context.output / name)
    return size_card(model, teacher, context.output / "model")
