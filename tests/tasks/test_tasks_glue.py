from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from tasks import registry
from tasks.glue import REPO, Cola, Glue, Mnli, Mrpc, Qnli, Rte, Sst2, Stsb
from tasks.glue_server import FILES
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


LIBRARY = {
    "accuracy": sklearn.metrics.accuracy_score,
    "f1": sklearn.metrics.f1_score,
    "matthews": sklearn.metrics.matthews_corrcoef,
    "pearson": lambda labels, found: scipy.stats.pearsonr(found, labels).statistic,
    "spearman": lambda labels, found: scipy.stats.spearmanr(found, labels).statistic,
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(3))
def test_metrics_are_the_libraries_on_random_predictions_with_ties(name: str, seed: int):
    task, draw = registry.load(name), np.random.default_rng(seed)
    if task.num_labels == 1:  # whole numbers, so that ranks are tied
        found, labels = (np.round(draw.uniform(0, 5, 301) * 4).tolist() for _ in range(2))
    else:
        found, labels = (draw.integers(0, task.num_labels, 301).tolist() for _ in range(2))
    cut = {"accuracy": slice(151), "accuracy_mismatched": slice(151, None)} if name == "glue.mnli.v1" else {}
    expected = {
        metric.name: LIBRARY[metric.name.removesuffix("_mismatched")](
            labels[cut.get(metric.name, slice(None))], found[cut.get(metric.name, slice(None))]
        )
        for metric in task.metrics
    }
    assert task.score(found, labels) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("task", [Stsb(), Mnli()])
def test_non_finite_predictions_are_refused(task: Glue):
    with pytest.raises(DataError, match="prediction 1 is nan"):
        task.score([1.0, math.nan, 2.0], [1.0, 2.0, 3.0])


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


@pytest.mark.parametrize("label", [0.5, None, "1", math.nan])
def test_what_is_no_class_is_refused(write_split: Callable[..., Path], label: object):
    labels = [label] if isinstance(label, str) else [label, 1]
    mirror = write_split(REPO, "cola", "train", sentence=["a", "b"][: len(labels)], label=labels)
    with pytest.raises(DataError, match=r"glue.cola.v1: label (0.5|None|1|nan) in row 0 of train; expected 0 to 1"):
        Cola().examples("train", mirror)


def test_regression_takes_fractions_from_0_to_5(write_split: Callable[..., Path]):
    mirror = write_split(REPO, "stsb", "train", sentence1=["a"] * 2, sentence2=["b"] * 2, label=[4.75, 5.25])
    with pytest.raises(DataError, match=r"glue.stsb.v1: label 5.25 in row 1 of train; expected 0.0 to 5.0"):
        Stsb().examples("train", mirror)


def test_an_empty_text_is_a_text_and_a_missing_one_is_not(write_split: Callable[..., Path]):
    mirror = write_split(REPO, "cola", "validation", sentence=["", "b"], label=[0, 1])
    assert Cola().examples("validation", mirror).first == ["", "b"]
    write_split(REPO, "cola", "validation", sentence=["a", None], label=[0, 1])
    with pytest.raises(DataError, match=r"config cola, split validation: None in column 'sentence', row 1; expected"):
        Cola().examples("validation", mirror)
    write_split(REPO, "cola", "validation", sentence=[], label=[])
    with pytest.raises(DataError, match="config cola, split validation: no rows"):
        Cola().examples("validation", mirror)


def test_mnli_parted_otherwise_is_refused(write_split: Callable[..., Path]):
    for split, count in (("validation_matched", 2), ("validation_mismatched", 6)):
        texts = [split] * count
        mirror = write_split(REPO, "mnli", split, premise=texts, hypothesis=texts, label=[0] * count)
    with pytest.raises(DataError, match=r"glue.mnli.v1: 2 matched and 6 mismatched validation examples"):
        Mnli().examples("validation", mirror)


def test_a_rate_for_mnli_is_judged_on_all_examples_held_out():
    assert Mnli().held_out_score([2, 1, 0, 0], [2, 0, 0, 0]) == 0.75
    assert Cola().held_out_score(PREDICTED, TRUE) == Cola().score(PREDICTED, TRUE)["matthews"]


def test_the_server_s_files_are_each_one_task_s():
    files = {name: set(registry.load(name).test_sets()) for name in NAMES}
    assert files["glue.mnli.v1"] == {"MNLI-m", "MNLI-mm", "AX"}
    assert sorted(file for found in files.values() for file in found) == sorted(FILES)


def test_a_test_set_has_texts_and_no_labels(write_split: Callable[..., Path]):
    mirror = write_split(REPO, "qnli", "test", question=["q"], sentence=["s"], label=[-1], idx=[0])
    found = Qnli().test_sets()["QNLI"].examples(mirror)
    assert (found.first, found.second, found.labels) == (["q"], ["s"], [-1])


@pytest.mark.usefixtures("offline")
def test_a_missing_test_split_is_named(write_split: Callable[..., Path]):
    mirror = write_split(REPO, "qnli", "validation", question=["q"], sentence=["s"], label=[1])
    with pytest.raises(DataError, match="config qnli, split test: not in the mirror"):
        Qnli().test_sets()["QNLI"].check(mirror)


def test_the_server_s_spelling():
    assert FILES["RTE"].lines([1, 0]) == ["index\tprediction", "0\tnot_entailment", "1\tentailment"]
    assert FILES["MNLI-mm"].lines([2, 1, 0])[1:] == ["0\tcontradiction", "1\tneutral", "2\tentailment"]
    assert FILES["STS-B"].lines([-0.25, 2.5, 5.5])[1:] == ["0\t0.000", "1\t2.500", "2\t5.000"]
    assert FILES["SST-2"].lines([1.0])[1:] == ["0\t1"]


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
