"""A trial of one learning rate: a short training like the one that counts, judged on held-out training text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from harness.engine.held_out import held_out_loss, split_held_out
from harness.stage import Context, Diverged
from harness.stages.language_model import read_tokens, taught, train_language_model
from methods.recipe import Recipe


def run(context: Context) -> Mapping[str, Any]:
    """Write `trial.json`: the rate, and the mean cross-entropy per held-out token, or the step at which it diverged.

    A trial that diverges is a result: it is not chosen.
    """
    recipe = Recipe.model_validate_json(json.dumps(context.params["recipe"]))
    rate = recipe.learning_rate
    assert isinstance(rate, float), "a trial is of one rate"
    text, held_out = split_held_out(read_tokens(context), recipe.sequence_length)
    trainee = taught(context, recipe)
    loss, steps, ran = None, recipe.steps, {}
    try:
        result = train_language_model(context, trainee, text, recipe, rate)
        ran = {"train_s": result.seconds, "micro_batch": result.micro_batch}
        if context.ranks.rank == 0:
            loss = held_out_loss(trainee.model, held_out, recipe.sequence_length)
    except Diverged as diverged:
        steps = diverged.step
    if context.ranks.rank > 0:
        return {}
    ended = {"held_out_loss": loss} if loss is not None and math.isfinite(loss) else {"diverged_at_step": steps}
    trial = {"learning_rate": rate, **ended}
    (context.output / "trial.json").write_text(json.dumps(trial))
    tokens = steps * recipe.batch_tokens
    spent = {"tokens": tokens, "flops": tokens * trainee.flops_per_token, **ran}
    return {**trial, "held_out_tokens": len(held_out), **spent}
