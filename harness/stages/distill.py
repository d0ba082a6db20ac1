"""Training of a student: cross entropy, the teacher's logits and the taps, as the recipe weighs them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from typing import Any

from transformers import AutoTokenizer

from harness.engine.held_out import split_held_out
from harness.stage import Context
from harness.stages.language_model import keep_trained, read_tokens, taught, train_language_model
from harness.stages.trials import best_rate
from methods.recipe import Recipe


def run(context: Context) -> Mapping[str, Any]:
    """Write the trained student's `model/`, `taps.json` and `curve.json`.

    With a grid of learning rates the `trial` inputs say which is best; the text that decided is not trained on.

    Raises:
        AllDiverged: no trial came to its end.
    """
    recipe = Recipe.model_validate_json(json.dumps(context.params["recipe"]))
    tokens = read_tokens(context)
    if isinstance(recipe.learning_rate, float):
        rate = recipe.learning_rate
    else:
        rate = best_rate(context.inputs, "held_out_loss")
        tokens, _ = split_held_out(tokens, recipe.sequence_length)
    trainee = taught(context, recipe)
    result = train_language_model(context, trainee, tokens, recipe, rate)
    tokenizer = AutoTokenizer.from_pretrained(context.inputs["student"] / "model")
    if context.ranks.rank == 0:
        shutil.copy(context.inputs["student"] / "taps.json", context.output / "taps.json")
    return {**keep_trained(context, trainee, tokenizer, result), "learning_rate": rate}
