"""A teacher trained from scratch on the sweep's corpus."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness.stage import Context
from harness.stages.language_model import keep_trained, read_tokens, train_language_model, untaught
from harness.teacher_config import scratch_config
from methods.recipe import Recipe


def run(context: Context) -> Mapping[str, Any]:
    """Write `model/` (weights and tokenizer) and `curve.json`."""
    recipe = Recipe.model_validate_json(json.dumps(context.params["recipe"]))
    tokenizer = AutoTokenizer.from_pretrained(context.inputs["tokenizer"] / "model")
    config = scratch_config(context.params["family"], context.params["config"])
    torch.manual_seed(context.params["seed"])
    model = AutoModelForCausalLM.from_config(config)
    assert isinstance(recipe.learning_rate, float), "the planner refuses a grid for a teacher"
    trainee = untaught(model, recipe)
    result = train_language_model(context, trainee, read_tokens(context), recipe, recipe.learning_rate)
    return keep_trained(context, trainee, tokenizer, result)
