"""Language-model training as a stage does it: data in, engine, model and loss curve out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.engine.batches import TokenBatches
from harness.engine.dropout import set_dropout
from harness.engine.flops import training_flops_per_token
from harness.engine.objective import LanguageModelObjective
from harness.engine.trainer import train
from harness.stage import Context, StageFailure
from methods import student
from methods.interface import Tap
from methods.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def read_taps(artifact: Path) -> Sequence[Tap]:
    """The taps that `compress` declared for a student."""
    return [Tap(**fields) for fields in json.loads((artifact / "taps.json").read_text())]


def train_language_model(
    context: Context,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    recipe: Recipe,
    *,
    teacher: PreTrainedModel | None,
    taps: Sequence[Tap],
) -> Mapping[str, Any]:
    """Train `model` on the `tokens` input by `recipe`; rank 0 writes `model/` and `curve.json`.

    A later phase of a staged method reads on from `first_step`, so that all its phases see the text that others see.
    """
    positions = model.config.max_position_embeddings
    if recipe.sequence_length > positions:
        raise StageFailure(f"sequence_length {recipe.sequence_length} is more than the model's {positions} positions")
    tokens = np.load(context.inputs["tokens"] / "train.npy", mmap_mode="r", allow_pickle=False)
    set_dropout(model, recipe.dropout)
    flops_per_token = training_flops_per_token(model, teacher, recipe.sequence_length)
    result = train(
        LanguageModelObjective(model, teacher, recipe.losses, taps),
        TokenBatches(
            tokens,
            recipe.sequence_length,
            recipe.batch_tokens,
            context.params["seed"],
            context.params.get("first_step", 0),
        ),
        recipe,
        recipe.steps,
        execution=context.execution,
        ranks=context.ranks,
        checkpoints=context.checkpoints,
        progress=context.progress,
        telemetry=context.telemetry,
        warn=context.warn,
        flops_per_token=flops_per_token,
    )
    if context.ranks.rank == 0:
        student.save(model, context.output / "model", tokenizer)
        (context.output / "curve.json").write_text(json.dumps(result.curve))
    return {
        "tokens": result.tokens,
        "flops": result.tokens * flops_per_token,
        "train_s": result.seconds,
        "micro_batch": result.micro_batch,
        "final_loss": result.curve[-1]["loss"],
    }
