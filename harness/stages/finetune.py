"""A classification head and the model under it, fine-tuned for a fixed number of epochs and scored."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from transformers import AutoTokenizer

from harness.engine.batches import ExampleBatches
from harness.engine.dropout import set_dropout
from harness.engine.flops import training_flops_per_token
from harness.engine.objective import ClassificationObjective
from harness.engine.predict import predict
from harness.engine.trainer import TrainResult, train
from harness.stage import Context
from harness.stages.language_model import read_taps
from harness.stages.loaded import base_model, encoded_examples, teacher_model
from methods import student
from methods.recipe import FineTune
from tasks.encoding import Encoded
from tasks.interface import Classification

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def run(context: Context) -> Mapping[str, Any]:
    """Write `items.parquet` (a line per validation example) and, for a teacher, `model/`; return the metrics."""
    recipe = FineTune.model_validate_json(json.dumps(context.params["recipe"]))
    module, _, name = context.params["target"].partition(":")
    task: Classification = getattr(import_module(module), name)()
    source = context.inputs["model"] / "model"
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = base_model(source, task.num_labels, context.params["seed"])
    encoded = _encoded(context, task, "train", tokenizer, recipe)
    model.config.pad_token_id = encoded.pad_token_id
    result, flops_per_token = _train(context, task, model, encoded, recipe)
    if context.ranks.rank > 0:
        return {}
    if context.params["keep_model"]:
        student.save(model, context.output / "model", tokenizer)
    metrics = _score(context, task, model, tokenizer, recipe)
    (context.output / "curve.json").write_text(json.dumps(result.curve))
    flops = result.tokens * flops_per_token
    spent = {"tokens": result.tokens, "flops": flops, "train_s": result.seconds}
    return {"metrics": metrics, "micro_batch": result.micro_batch} | spent


def _train(
    context: Context, task: Classification, model: PreTrainedModel, encoded: Encoded, recipe: FineTune
) -> tuple[TrainResult, float]:
    """What training reports, and its FLOPs per token."""
    teacher = _teacher(context, task.num_labels, encoded.pad_token_id, recipe)
    taps = read_taps(context.inputs["model"]) if teacher is not None and recipe.losses.taps else ()
    set_dropout(model, recipe.dropout)
    flops_per_token = training_flops_per_token(model, teacher, recipe.max_length)
    batches = ExampleBatches(
        encoded.input_ids,
        encoded.labels.tolist(),
        recipe.batch_examples,
        context.params["seed"],
        encoded.pad_token_id,
        regression=task.num_labels == 1,
    )
    result = train(
        ClassificationObjective(model, teacher, recipe.losses, taps),
        batches,
        recipe,
        batches.steps(recipe.epochs),
        execution=context.execution,
        ranks=context.ranks,
        checkpoints=context.checkpoints,
        progress=context.progress,
        telemetry=context.telemetry,
        warn=context.warn,
        flops_per_token=flops_per_token,
    )
    return result, flops_per_token


def _teacher(context: Context, num_labels: int, pad_id: int, recipe: FineTune) -> PreTrainedModel | None:
    """The engine moves a teacher to its device, casts and shards it in place; in fp32 on the CPU it changes nothing."""
    if "teacher" not in context.inputs:
        return None
    changed = recipe.precision != "fp32" or context.execution.gpus or context.execution.shard_teacher
    teacher = teacher_model(context.inputs["teacher"] / "model", num_labels, shared=not changed)
    teacher.config.pad_token_id = pad_id
    return teacher


def _encoded(
    context: Context, task: Classification, split: str, tokenizer: PreTrainedTokenizerBase, recipe: FineTune
) -> Encoded:
    return encoded_examples(
        task,
        split,
        tokenizer,
        context.inputs["model"] / "model",
        mirror=context.mirror,
        limit=context.params["train_rows"] if split == "train" else None,
        max_length=recipe.max_length,
    )


def _score(
    context: Context,
    task: Classification,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    recipe: FineTune,
) -> Mapping[str, float]:
    encoded = _encoded(context, task, "validation", tokenizer, recipe)
    logits_NC = predict(model, encoded.input_ids, encoded.pad_token_id, batch_examples=2 * recipe.batch_examples)
    predictions: Sequence[float] = (logits_NC[:, 0] if task.num_labels == 1 else logits_NC.argmax(-1)).tolist()
    labels = encoded.labels.tolist()
    items = {
        "item": [str(number) for number in range(len(labels))],
        "prediction": predictions,
        "label": labels,
        "correct": [float(p == label) for p, label in zip(predictions, labels, strict=True)],
    }
    pq.write_table(pa.table(items), context.output / "items.parquet")
    return dict(task.score(predictions, labels))
