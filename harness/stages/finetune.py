"""A classification head and the model under it, fine-tuned for a fixed number of epochs and scored."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import AutoTokenizer

from harness.engine.batches import ExampleBatches
from harness.engine.dropout import set_dropout
from harness.engine.flops import training_flops
from harness.engine.objective import ClassificationObjective
from harness.engine.predict import predict
from harness.engine.trainer import TrainResult, train
from harness.stage import Context
from harness.stages.language_model import read_taps
from methods import student
from methods.recipe import FineTune
from tasks.encoding import Encoded, encode
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
    torch.manual_seed(context.params["seed"])
    model = student.load(source, head="classification", num_labels=task.num_labels)
    examples = task.examples("train", context.mirror, context.params["train_rows"])
    encoded = encode(tokenizer, examples, recipe.max_length)
    model.config.pad_token_id = encoded.pad_token_id
    result, teacher = _train(context, task, model, encoded, recipe)
    if context.ranks.rank > 0:
        return {}
    if context.params["keep_model"]:
        student.save(model, context.output / "model", tokenizer)
    metrics = _score(context, task, model, tokenizer, recipe)
    (context.output / "curve.json").write_text(json.dumps(result.curve))
    flops = training_flops(model, teacher, result.tokens, recipe.max_length)
    return {"metrics": metrics, "tokens": result.tokens, "flops": flops, "train_s": result.seconds}


def _train(
    context: Context, task: Classification, model: PreTrainedModel, encoded: Encoded, recipe: FineTune
) -> tuple[TrainResult, PreTrainedModel | None]:
    teacher = _teacher(context.inputs.get("teacher"), task.num_labels, encoded.pad_token_id)
    taps = read_taps(context.inputs["model"]) if teacher is not None and recipe.losses.taps else ()
    set_dropout(model, recipe.dropout)
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
    )
    return result, teacher


def _teacher(artifact: Path | None, num_labels: int, pad_id: int) -> PreTrainedModel | None:
    if artifact is None:
        return None
    teacher = student.load(artifact / "model", head="classification", num_labels=num_labels)
    teacher.config.pad_token_id = pad_id
    return teacher


def _score(
    context: Context,
    task: Classification,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    recipe: FineTune,
) -> Mapping[str, float]:
    examples = task.examples("validation", context.mirror)
    encoded = encode(tokenizer, examples, recipe.max_length)
    logits_NC = predict(model, encoded.input_ids, encoded.pad_token_id, batch_examples=2 * recipe.batch_examples)
    predictions: Sequence[float] = (logits_NC[:, 0] if task.num_labels == 1 else logits_NC.argmax(-1)).tolist()
    labels = list(examples.labels)
    items = {
        "item": [str(number) for number in range(len(labels))],
        "prediction": predictions,
        "label": labels,
        "correct": [float(p == label) for p, label in zip(predictions, labels, strict=True)],
    }
    pq.write_table(pa.table(items), context.output / "items.parquet")
    return dict(task.score(predictions, labels))
