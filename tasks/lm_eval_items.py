"""lm-eval's samples as items: what each document contributed to each metric.

A column is called as the metric whose mean it is (`acc`, `acc_norm`, `exact_match,strict-match`). Likelihoods are
columns `nll` (nats) with `words` and `bytes` where lm-eval normalises by them; classes are `prediction` and `label`;
`correct` repeats an `acc` that is 0 or 1 for every document.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tasks.interface import DataError
from tasks.likelihood import finite
from tasks.lm_eval_metrics import full_name

Sample = Mapping[str, Any]
WEIGHTS = {"word_perplexity": "words", "byte_perplexity": "bytes", "bits_per_byte": "bytes"}
CLASSES = frozenset({"mcc", "f1"})
ASKED = frozenset({"loglikelihood", "loglikelihood_rolling", "multiple_choice"})
"""Output types whose responses are log-likelihoods."""


def items_of(samples: Mapping[str, Sequence[Sample]]) -> dict[str, list[Any]]:
    """Columns over the documents of all tasks, in their order; only those that every document has."""
    rows: dict[str, dict[str, Any]] = {}
    for task, each in samples.items():
        for sample in sorted(each, key=lambda sample: int(sample["doc_id"])):
            item = str(sample["doc_id"]) if len(samples) == 1 else f"{task}/{sample['doc_id']}"
            rows.setdefault(item, {}).update(_contributions(sample))
    shared = [name for name in next(iter(rows.values()), {}) if all(name in row for row in rows.values())]
    columns: dict[str, list[Any]] = {"item": list(rows)}
    columns |= {name: [row[name] for row in rows.values()] for name in shared}
    if set(columns.get("acc", [math.nan])) <= {0.0, 1.0}:
        columns["correct"] = columns["acc"]
    return columns


def check_samples(task: str, output_type: str, samples: Sequence[Sample]) -> None:
    """Raise `DataError` for a log-likelihood that is not finite, or a label that is none of the choices."""
    for sample in samples if output_type in ASKED else ():
        found = list(_responses(sample["resps"]))
        finite(f"lm-eval's task {task}", found, [f"document {sample['doc_id']}"] * len(found))
        if output_type == "multiple_choice":
            _check_label(task, sample)


def _check_label(task: str, sample: Sample) -> None:
    """lm-eval itself counts such a document as wrong."""
    given = sample["target"] if isinstance(sample["target"], list) else [sample["target"]]
    choices = len(sample["resps"])
    for label in given:
        if isinstance(label, int) and not 0 <= label < choices:
            raise DataError(
                f"lm-eval's task {task}: label {label} of document {sample['doc_id']}; expected 0 to {choices - 1}"
            )


def _responses(resps: Sequence[Sequence[Any]]) -> Iterator[float]:
    """The log-likelihoods of all requests: bare, or with whether the target was the likeliest."""
    for responses in resps:
        for response in responses:
            yield float(response[0] if isinstance(response, tuple | list) else response)


def _contributions(sample: Sample) -> Iterator[tuple[str, Any]]:
    for metric in sample["metrics"]:
        value = sample[metric]
        if metric in WEIGHTS:
            yield from (("nll", -float(value[0])), (WEIGHTS[metric], int(value[1])))
        elif metric in CLASSES and isinstance(value, tuple) and all(hasattr(each, "__index__") for each in value):
            yield from (("label", int(value[0])), ("prediction", int(value[1])))
        elif metric == "perplexity":
            yield "nll", -float(value)
        elif hasattr(value, "__float__") and getattr(value, "ndim", 0) == 0:
            yield full_name(metric, sample["filter"]), float(value)
