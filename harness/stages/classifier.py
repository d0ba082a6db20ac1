"""Fine-tuning as the stages do it: a classification head and the model under it, trained on examples and predicting."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from torch import Tensor
from transformers import AutoTokenizer

from harness.engine.batches import ExampleBatches
from harness.engine.dropout import set_dropout
from harness.engine.flops import training_flops_per_token
from harness.engine.objective import ClassificationObjective
from harness.engine.predict import predict
from harness.engine.trainer import TrainResult, train
from harness.stage import Context, StageFailure
from harness.stages.language_model import read_taps
from harness.stages.loaded import base_model, encoded_examples, teacher_model
from methods.interface import Tap
from methods.recipe import FineTune, Optimisation
from tasks.encoding import Encoded, encode
from tasks.interface import Classification, Examples

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A model under a new head, what it is trained for, and what it is taught by."""

    context: Context
    task: Classification
    recipe: FineTune
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    teacher: PreTrainedModel | None
    taps: Sequence[Tap]
    flops_per_token: float
    """Of its training, the teacher's forward pass included."""

    def examples(self, split: str) -> Encoded:
        """A split of the task as token ids, `train` as far as the sweep's `train_rows` go."""
        context = self.context
        encoded = encoded_examples(
            self.task,
            split,
            self.tokenizer,
            context.inputs["model"] / "model",
            mirror=context.mirror,
            limit=context.params["train_rows"] if split == "train" else None,
            max_length=self.recipe.max_length,
        )
        return self._known(encoded)

    def encoded(self, examples: Examples) -> Encoded:
        """Other examples as token ids."""
        return self._known(encode(self.tokenizer, examples, self.recipe.max_length))

    def _known(self, encoded: Encoded) -> Encoded:
        """Refuse a tokenizer that is not the model's."""
        largest = max((max(ids) for ids in encoded.input_ids), default=0)
        if largest >= self.model.config.vocab_size:
            raise StageFailure(
                f"the tokenizer gives token {largest}; the model embeds {self.model.config.vocab_size} tokens"
            )
        return encoded

    def batches(self, examples: Encoded) -> ExampleBatches:
        """Examples in the order of the stage's seed."""
        return ExampleBatches(
            examples.input_ids,
            examples.labels.tolist(),
            self.recipe.batch_examples,
            self.context.params["seed"],
            examples.pad_token_id,
            regression=self.task.num_labels == 1,
        )

    def train(self, batches: ExampleBatches, optimisation: Optimisation) -> TrainResult:
        """Train the model in place for the recipe's epochs."""
        context = self.context
        return train(
            ClassificationObjective(self.model, self.teacher, self.recipe.losses, self.taps),
            batches,
            optimisation,
            batches.steps(self.recipe.epochs),
            execution=context.execution,
            ranks=context.ranks,
            checkpoints=context.checkpoints,
            progress=context.progress,
            telemetry=context.telemetry,
            warn=context.warn,
            flops_per_token=self.flops_per_token,
        )

    def logits(self, examples: Encoded) -> Tensor:
        """What the model says of each example, (N, C)."""
        return predict(
            self.model, examples.input_ids, examples.pad_token_id, batch_examples=2 * self.recipe.batch_examples
        )

    def predictions(self, logits_NC: Tensor) -> list[float]:
        """Class indices, or the numbers themselves in a regression."""
        found: list[float] = (logits_NC[:, 0] if self.task.num_labels == 1 else logits_NC.argmax(-1)).tolist()
        return found


def classifier(context: Context) -> Classifier:
    """The `model` input under a head drawn from the seed; the `teacher` input teaches where there is one."""
    recipe = FineTune.model_validate_json(json.dumps(context.params["recipe"]))
    module, _, name = context.params["target"].partition(":")
    task: Classification = getattr(import_module(module), name)()
    source = context.inputs["model"] / "model"
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = base_model(source, task.num_labels, context.params["seed"])
    teacher = _teacher(context, task.num_labels, recipe)
    for each in (model, teacher):
        if each is not None:
            each.config.pad_token_id = tokenizer.eos_token_id
    set_dropout(model, recipe.dropout)
    return Classifier(
        context=context,
        task=task,
        recipe=recipe,
        model=model,
        tokenizer=tokenizer,
        teacher=teacher,
        taps=read_taps(context.inputs["model"]) if teacher is not None and recipe.losses.taps else (),
        flops_per_token=training_flops_per_token(model, teacher, recipe.max_length),
    )


def _teacher(context: Context, num_labels: int, recipe: FineTune) -> PreTrainedModel | None:
    """The engine moves a teacher to its device, casts and shards it in place; in fp32 on the CPU it changes nothing."""
    if "teacher" not in context.inputs:
        return None
    changed = recipe.precision != "fp32" or context.execution.gpus or context.execution.shard_teacher
    return teacher_model(context.inputs["teacher"] / "model", num_labels, shared=not changed)
