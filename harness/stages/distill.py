"""Training of a student: cross entropy, the teacher's logits and the taps, as the recipe weighs them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from typing import Any

from transformers import AutoTokenizer

from harness.stage import Context
from harness.stages.language_model import read_taps, train_language_model
from methods import student
from methods.recipe import Recipe


def run(context: Context) -> Mapping[str, Any]:
    """Write the trained student's `model/`, `taps.json` and `curve.json`."""
    recipe = Recipe.model_validate_json(json.dumps(context.params["recipe"]))
    model = student.load(context.inputs["student"] / "model")
    teacher = student.load(context.inputs["teacher"] / "model") if recipe.losses.needs_teacher else None
    tokenizer = AutoTokenizer.from_pretrained(context.inputs["student"] / "model")
    taps = read_taps(context.inputs["student"]) if recipe.losses.taps else ()
    result = train_language_model(context, model, tokenizer, recipe, teacher=teacher, taps=taps)
    if context.ranks.rank == 0:
        shutil.copy(context.inputs["student"] / "taps.json", context.output / "taps.json")
    return result
