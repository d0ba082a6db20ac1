from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tasks import registry
from tasks.glue import REPO, Cola, Glue, Mnli, Mrpc, Rte, Sst2, Stsb
from tasks.interface import DataError

NAMES = [name for name in registry.names() if name.startswith("glue.")]
PREDICTED = [1, 0, 1, 1, 0, 1, 0, 0, 1, 1]
TRUE = [1, 0, 0, 1, 1, 1, 0, 1, 1, 0]


def confusion(predicted: list[int], true: list[int]) -> tuple[int, int, int, int]:
    """True positives, false positives, false negatives, true negatives."""
    pairs = list(zip(predicted, true, strict=True))
    return pairs.count((1, 1)), pairs.count((1, 0)), pairs.count((0, 1)), pairs.count((0, 0))


def test_matthews_is_the_formula_from_the_confusion_matrix():
    tp, fp, fn, tn = confusion(PREDICTED, TRUE)
    expected = (tp * tn - fp * fn) / math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert Cola().score(PREDICTED, TRUE) == {"matthews": pytest.approx(expected)}


def test_f1_and_accuracy_are_the_formulas_from_the_confusion_matrix():
    tp, fp, fn, tn = confusion(PREDICTED, TRUE)
    assert Mrpc().score(PREDICTED, TRUE) == {
        "f1": pytest.approx(2 * tp / (2 * tp + fp + fn)),
        "accuracy": pytest.approx((tp + tn) / 10),
    }


def test_correlations_are_those_of_values_and_of_ranks():
    predicted, true = [0.1, 4.0, 2.0, 5.5, 2.5], [0.0, 3.0, 3.5, 5.0, 1.0]
    ranks = [np.argsort(np.argsort(values)) for values in (predicted, true)]
    assert Stsb().score(predicted, true) == {
        "pearson": pytest.approx(np.corrcoef(predicted, true)[0, 1]),
        "spearman": pytest.approx(np.corrcoef(*ranks)[0, 1]),
    }


@pytest.mark.parametrize("task", [Cola(), Mrpc(), Stsb(), Sst2()])
@pytest.mark.parametrize("value", [0, 1])
def test_constant_predictions_score_without_warnings(task: Glue, value: int):
    scores = task.score([value] * 4, [0, 1, 1, 0])
    assert all(0 <= score <= 1 for score in scores.values())
    assert all(scores[name] == 0 for name in ("matthews", "pearson", "spearman") if name in scores)
    assert all(math.isfinite(score) for score in task.score([value] * 4, [value] * 4).values())


def test_non_finite_predictions_are_refused():
    with pytest.raises(DataError, match="prediction 1 is nan"):
        Stsb().score([1.0, math.nan, 2.0], [1.0, 2.0, 3.0])


def test_every_task_says_the_labels_and_metrics_of_the_papers_table():
    labels = {name: registry.load(name).num_labels for name in NAMES}
    assert {name: count for name, count in labels.items() if count != 2} == {"glue.mnli.v1": 3, "glue.stsb.v1": 1}
    metrics = {name.split(".")[1]: [metric.name for metric in registry.load(name).metrics] for name in NAMES}
    assert metrics == {
        "cola": ["matthews"],
        "mnli": ["accuracy", "accuracy_mismatched"],
        "mrpc": ["f1", "accuracy"],
        "qnli": ["accuracy"],
        "qqp": ["f1", "accuracy"],
        "rte": ["accuracy"],
        "sst2": ["accuracy"],
        "stsb": ["pearson", "spearman"],
        "wnli": ["accuracy"],
    }


def test_limit_keeps_a_fixed_random_subset_in_order(write_split: Callable[..., Path]):
    texts = [str(row) for row in range(50)]
    mirror = write_split(REPO, "rte", "train", sentence1=texts, sentence2=texts[::-1], label=[0, 1] * 25)
    full, part = Rte().examples("train", mirror), Rte().examples("train", mirror, limit=10)
    assert (len(full), len(part)) == (50, 10)
    rows = [int(text) for text in part.first]
    assert rows == sorted(rows) != list(range(10))
    assert part.second is not None
    assert [49 - int(text) for text in part.second] == rows
    assert list(part.labels) == [row % 2 for row in rows]
    assert Rte().examples("train", mirror, limit=10) == part
    assert Rte().examples("train", mirror, limit=99) == full


@pytest.mark.parametrize("label", [-1, 2])
def test_labels_out_of_range_are_refused(write_split: Callable[..., Path], label: int):
    mirror = write_split(REPO, "cola", "validation", sentence=["a", "b"], label=[0, label])
    with pytest.raises(DataError, match=rf"glue.cola.v1: label {label} in row 1 of validation; expected 0 to 1"):
        Cola().examples("validation", mirror)


@pytest.mark.usefixtures("offline")
def test_check_needs_every_split(write_split: Callable[..., Path]):
    mirror = write_split(REPO, "cola", "validation", sentence=["a"], label=[0])
    with pytest.raises(DataError, match="config cola, split train"):
        Cola().check(mirror)
    write_split(REPO, "cola", "train", sentence=["a"], label=[0])
    Cola().check(mirror)


@pytest.mark.parametrize("limit", [None, 7])
def test_mnli_scores_matched_and_mismatched_apart(write_split: Callable[..., Path], limit: int | None):
    for split in ("validation_matched", "validation_mismatched"):
        label = [2] * 6 if split == "validation_matched" else [0] * 6
        mirror = write_split(REPO, "mnli", split, premise=[split] * 6, hypothesis=["h"] * 6, label=label)
    examples = Mnli().examples("validation", mirror, limit)
    matched = [text == "validation_matched" for text in examples.first]
    assert matched.count(True) - matched.count(False) == (0 if limit is None else 1)
    predictions = [2] * len(examples)
    assert Mnli().score(predictions, examples.labels) == {"accuracy": 1.0, "accuracy_mismatched": 0.0}


@pytest.mark.mirror
@pytest.mark.parametrize(
    ("name", "split", "count"),
    [
        ("cola", "train", 8551),
        ("cola", "validation", 1043),
        ("sst2", "train", 67349),
        ("sst2", "validation", 872),
        ("rte", "train", 2490),
        ("rte", "validation", 277),
        ("qnli", "validation", 5463),
    ],
)
def test_mirror_has_the_published_rows(mirror: Path, name: str, split: str, count: int):
    examples = registry.load(f"glue.{name}.v1").examples(split, mirror)
    assert len(examples) == count
    assert split != "train" or registry.load(f"glue.{name}.v1").train_examples == count
    assert (examples.second is None) == (name in {"cola", "sst2"})
    assert set(examples.labels) == {0, 1}
