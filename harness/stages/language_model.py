"""Language-model training as the stages do it: data in, engine, model and loss curve out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.engine.batches import TokenBatches
from harness.engine.dropout import set_dropout
from harness.engine.flops import training_flops_per_token
from harness.engine.objective import LanguageModelObjective
from harness.engine.trainer import TrainResult, train
from harness.stage import Context, StageFailure
from methods import student
from methods.interface import Tap
from methods.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def read_taps(artifact: Path) -> Sequence[Tap]:
    """The taps that `compress` declared for a student."""
    return [Tap(**fields) for fields in json.loads((artifact / "taps.json").read_text())]


def read_tokens(context: Context) -> NDArray[np.integer]:
    """The training text of the `tokens` input, one stream."""
    tokens: NDArray[np.integer] = np.load(context.inputs["tokens"] / "train.npy", mmap_mode="r", allow_pickle=False)
    return tokens


@dataclass(frozen=True, kw_only=True)
class Trainee:
    """A model to be trained in place, and what it is taught by."""

    model: PreTrainedModel
    teacher: PreTrainedModel | None = None
    taps: Sequence[Tap] = ()
    flops_per_token: float
    """Of its training, the teacher's forward pass included."""


def taught(context: Context, recipe: Recipe) -> Trainee:
    """The `student` input, with the `teacher` input where a loss needs it and the taps where they weigh anything."""
    model = student.load(context.inputs["student"] / "model")
    teacher = student.load(context.inputs["teacher"] / "model") if recipe.losses.needs_teacher else None
    taps = read_taps(context.inputs["student"]) if recipe.losses.taps else ()
    flops = training_flops_per_token(model, teacher, recipe.sequence_length)
    return Trainee(model=model, teacher=teacher, taps=taps, flops_per_token=flops)


def untaught(model: PreTrainedModel, recipe: Recipe) -> Trainee:
    """A model that learns from the text alone."""
    flops = training_flops_per_token(model, None, recipe.sequence_length)
    return Trainee(model=model, flops_per_token=flops)


def train_language_model(
    context: Context, trainee: Trainee, tokens: NDArray[np.integer], recipe: Recipe, rate: float
) -> TrainResult:
    """Train on the stream `tokens` by `recipe`, at the peak learning rate `rate`.

    A later phase of a staged method reads on from `first_step`, so that all its phases see the text that others see.
    """
    positions = trainee.model.config.max_position_embeddings
    if recipe.sequence_length > positions:
        raise StageFailure(f"sequence_length {recipe.sequence_length} is more than the model's {positions} positions")
    set_dropout(trainee.model, recipe.dropout)
    seed, first_step = context.params["seed"], context.params.get("first_step", 0)
    return train(
        LanguageModelObjective(trainee.model, trainee.teacher, recipe.losses, trainee.taps),
        TokenBatches(tokens, recipe.sequence_length, recipe.batch_tokens, seed, first_step),
        recipe.optimisation(rate),
        recipe.steps,
        execution=context.execution,
        ranks=context.ranks,
        checkpoints=context.checkpoints,
        progress=context.progress,
        telemetry=context.telemetry,
        warn=context.warn,
        flops_per_token=trainee.flops_per_token,
    )


def keep_trained(
    context: Context, trainee: Trainee, tokenizer: PreTrainedTokenizerBase, result: TrainResult
) -> Mapping[str, Any]:
    """Write `model/` and `curve.json` (rank 0); return what the training took."""
    if context.ranks.rank == 0:
        student.save(trainee.model, context.output / "model", tokenizer)
        (context.output / "curve.json").write_text(json.dumps(result.curve))
    return {
        "tokens": result.tokens,
        "flops": result.tokens * trainee.flops_per_token,
        "train_s": result.seconds,
        "micro_batch": result.micro_batch,
        "final_loss": result.curve[-1]["loss"],
    }
