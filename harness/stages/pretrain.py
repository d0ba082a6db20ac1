"""A teacher trained from scratch on the sweep's corpus."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness.stage import Context
from harness.stages.language_model import train_language_model
from harness.teacher_config import scratch_config
from methods.recipe import Recipe


def run(context: Context) -> Mapping[str, Any]:
    """Write `model/` (weights and tokenizer) and `curve.json`."""
    recipe = Recipe.model_validate_json(json.dumps(context.params["recipe"]))
    tokenizer = AutoTokenizer.from_pretrained(context.inputs["tokenizer"] / "model")
    config = scratch_config(context.params["family"], context.params["config"])
    torch.manual_seed(context.params["seed"])
    model = AutoModelForCausalLM.from_config(config)
    return train_language_model(context, model, tokenizer, recipe, teacher=None, taps=())
