"""A classification head and the model under it, fine-tuned for a fixed number of epochs, scored and made to predict."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from harness.stage import Context
from harness.stages.classifier import Classifier, classifier
from harness.stages.trials import best_rate
from methods import student


def run(context: Context) -> Mapping[str, Any]:
    """Write `items.parquet` (a line per validation example) and `curve.json`; return the metrics.

    For a teacher also `model/`, and where the sweep asks for it `test_predictions.parquet`. With a grid of learning
    rates the `trial` inputs say which is best.

    Raises:
        AllDiverged: no trial came to its end.
    """
    tuned = classifier(context)
    rate = tuned.recipe.learning_rate
    if not isinstance(rate, float):
        higher_is_better = tuned.task.metrics[0].higher_is_better
        rate = best_rate(context.inputs, "held_out_score", higher_is_better=higher_is_better)
    result = tuned.train(tuned.batches(tuned.examples("train")), tuned.recipe.optimisation(rate))
    if context.ranks.rank > 0:
        return {}
    if context.params["keep_model"]:
        student.save(tuned.model, context.output / "model", tuned.tokenizer)
    metrics = _score(tuned)
    if "test" in context.params:
        _predict_test(tuned)
    (context.output / "curve.json").write_text(json.dumps(result.curve))
    flops = result.tokens * tuned.flops_per_token
    spent = {"tokens": result.tokens, "flops": flops, "train_s": result.seconds}
    return {"metrics": metrics, "learning_rate": rate, "micro_batch": result.micro_batch} | spent


def _score(tuned: Classifier) -> Mapping[str, float]:
    """The metrics of the validation split, and its items as `tasks.interface.Measurement` has them."""
    examples = tuned.examples("validation")
    logits_NC = tuned.logits(examples)
    predictions, labels = tuned.predictions(logits_NC), examples.labels.tolist()
    items = {
        "item": [str(number) for number in range(len(labels))],
        "prediction": predictions,
        "label": labels,
        "correct": [float(p == label) for p, label in zip(predictions, labels, strict=True)],
    }
    items |= {f"logit_{place}": logits_N.numpy() for place, logits_N in enumerate(logits_NC.unbind(-1))}
    for metric in tuned.task.metrics:
        part = tuned.task.items_of(metric.name, len(labels))
        if part != slice(None):
            rows = set(range(len(labels))[part])
            items[f"in_{metric.name}"] = [row in rows for row in range(len(labels))]
    pq.write_table(pa.table(items), tuned.context.output / "items.parquet")
    return dict(tuned.task.score(predictions, labels))


def _predict_test(tuned: Classifier) -> None:
    """A line per example of each of the task's test sets."""
    lines: dict[str, list[Any]] = {"set": [], "index": [], "prediction": []}
    for name, texts in tuned.task.test_sets().items():
        predictions = tuned.predictions(tuned.logits(tuned.encoded(texts.examples(tuned.context.mirror))))
        lines["set"] += [name] * len(predictions)
        lines["index"] += range(len(predictions))
        lines["prediction"] += predictions
    pq.write_table(pa.table(lines), tuned.context.output / "test_predictions.parquet")
