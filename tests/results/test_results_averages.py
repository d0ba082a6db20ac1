"""Averages over tasks: their values, their intervals against leaving out each example, and when there are none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from results.averages import AVERAGES
from results.board import board
from results.json_view import dumps
from results.model import Row, Tab
from results.record import Measured
from results.table import as_csv, markdown

SIZES = {"cola": 40, "sst2": 30, "mrpc": 20, "stsb": 25, "qqp": 35, "mnli": 31, "qnli": 22, "rte": 18, "wnli": 11}
NINE, EIGHT, SEVEN = (average.protocol for average in AVERAGES)
KNGPT2 = {"cola": "matthews", "rte": "accuracy", "mrpc": "f1", "sst2": "accuracy", "mnli": "accuracy"} | {
    "qnli": "accuracy",
    "qqp": "accuracy",
}
Data = tuple[np.ndarray, np.ndarray]


def predicted(task: str, quality: float, seed: int) -> Data:
    """Predictions that are right as often as `quality` says, of labels that do not depend on it."""
    n = SIZES[task]
    truth, noise = np.random.default_rng([*task.encode()]), np.random.default_rng([*task.encode(), seed])
    if task == "stsb":
        label = np.round(truth.uniform(0, 5, n), 1)
        return label + (1 - quality) * 5 * noise.standard_normal(n), label
    label = truth.integers(0, 3 if task == "mnli" else 2, n)
    return np.where(noise.random(n) < quality, label, (label + 1) % (3 if task == "mnli" else 2)), label


def metrics(task: str, data: Data) -> dict[str, float]:
    """By scikit-learn and scipy; MNLI's first 16 examples are the matched ones."""
    guess, label = data
    accuracy = sklearn.metrics.accuracy_score
    if task == "cola":
        return {"matthews": sklearn.metrics.matthews_corrcoef(label, guess)}
    if task in ("mrpc", "qqp"):
        return {"f1": sklearn.metrics.f1_score(label, guess), "accuracy": accuracy(label, guess)}
    if task == "stsb":
        return {"pearson": scipy.stats.pearsonr(guess, label)[0], "spearman": scipy.stats.spearmanr(guess, label)[0]}
    if task == "mnli":
        return {
            "accuracy": accuracy(label[:16], guess[:16]),
            "accuracy_mismatched": accuracy(label[16:], guess[16:]),
        }
    return {"accuracy": accuracy(label, guess)}


def measured(reader: Any, row: str, seed: int, quality: float, tasks: Sequence[str], settings: str) -> list[Measured]:
    found = []
    for task in tasks:
        guess, label = data = predicted(task, quality, seed)
        items: dict[str, Any] = {"item": [str(i) for i in range(len(label))], "prediction": guess, "label": label}
        items["correct"] = (guess == label).astype(float)
        if task == "mnli":
            matched = np.arange(len(label)) < 16
            items |= {"in_accuracy": matched, "in_accuracy_mismatched": ~matched}
        path, digest = reader.put_items(f"{row}-{seed}-glue-{task}", items)
        found += [
            Measured(
                protocol=f"glue.{task}.v1", metric=name, value=value, unit="fraction", higher_is_better=True,
                main=place == 0, data=f"sha256:{task}", settings=settings, items_path=path, items_sha256=digest,
                stage_key="f" * 24,
            )
            for place, (name, value) in enumerate(metrics(task, data).items())
        ]  # fmt: skip
    return found


def add(
    reader: Any, sweep: Any, row: str, method: str, *, seed: int = 0, quality: float = 0.8,
    tasks: Sequence[str] = tuple(SIZES), settings: str = "3 epochs", **options: Any,
) -> None:  # fmt: skip
    sweep.add(row, method, seed=seed, measured=measured(reader, row, seed, quality, tasks, settings), **options)


def averages(tab: Tab) -> dict[str, str]:
    """Protocol -> column key."""
    known = {average.protocol for average in AVERAGES}
    return {column.protocol: column.key for column in tab.columns if column.protocol in known}


def row_of(tab: Tab, name: str) -> Row:
    return next(row for row in tab.rows if row.id == name)


def task_score(task: str, data: Data) -> float:
    return float(np.mean(list(metrics(task, data).values())))


def test_an_average_is_the_mean_of_the_tasks_means_of_their_metrics(reader: Any, sweep: Any) -> None:
    add(reader, sweep, "00aaaaaa", "svd")
    (tab,) = board(reader).tabs
    row, keys = row_of(tab, "00aaaaaa"), averages(tab)
    scores = {task: task_score(task, predicted(task, 0.8, 0)) for task in SIZES}
    assert row.scores[keys[NINE]].summary.value == pytest.approx(np.mean(list(scores.values())))
    without = [score for task, score in scores.items() if task != "wnli"]
    assert row.scores[keys[EIGHT]].summary.value == pytest.approx(np.mean(without))
    seven = [metrics(task, predicted(task, 0.8, 0))[name] for task, name in KNGPT2.items()]
    assert row.scores[keys[SEVEN]].summary.value == pytest.approx(np.mean(seven))


def leaving_out(task: str, data: Data) -> float:
    """Jackknife variance of a task's score: of MNLI's two parts apart, since each has its own examples."""
    if task == "mnli":
        parts = [tuple(each[part] for each in data) for part in (slice(16), slice(16, None))]
        return sum(np.var(guess == label) / (len(label) - 1) for guess, label in parts) / 4
    n = len(data[0])
    without = np.array([task_score(task, (np.delete(data[0], i), np.delete(data[1], i))) for i in range(n)])
    return float((n - 1) / n * ((without - without.mean()) ** 2).sum())


def test_the_interval_is_that_of_leaving_out_each_example(reader: Any, sweep: Any) -> None:
    add(reader, sweep, "00aaaaaa", "svd")
    (tab,) = board(reader).tabs
    summary = row_of(tab, "00aaaaaa").scores[averages(tab)[NINE]].summary
    variance = sum(leaving_out(task, predicted(task, 0.8, 0)) for task in SIZES) / 81
    assert (summary.basis, summary.items) == ("items only", sum(SIZES.values()))
    half = scipy.stats.t.ppf(0.975, summary.items - 1) * np.sqrt(variance)
    assert summary.high - summary.value == pytest.approx(half, rel=0.02)  # Spearman's ranks stay


def test_seeds_are_averaged_one_by_one_and_covered_by_the_interval(reader: Any, sweep: Any) -> None:
    for seed in (0, 1, 2):
        add(reader, sweep, "00aaaaaa", "svd", seed=seed)
    (tab,) = board(reader).tabs
    score = row_of(tab, "00aaaaaa").scores[averages(tab)[NINE]]
    by_seed = {s: np.mean([task_score(task, predicted(task, 0.8, s)) for task in SIZES]) for s in (0, 1, 2)}
    assert score.by_seed == pytest.approx(by_seed)
    assert score.summary.value == pytest.approx(np.mean(list(by_seed.values())))
    assert (score.summary.basis, score.summary.seeds) == ("seeds and items", 3)


def test_rows_are_ranked_by_an_average_in_pairs(reader: Any, sweep: Any) -> None:
    add(reader, sweep, "00aaaaaa", "svd", quality=0.95)
    add(reader, sweep, "01aaaaaa", "kronecker", quality=0.6)
    add(reader, sweep, "02aaaaaa", "tq", quality=0.6)
    (tab,) = board(reader).tabs
    key = averages(tab)[NINE]
    ranks = {row.method: row.scores[key].rank for row in tab.rows}
    assert ranks == {"svd": (1, 1), "kronecker": (2, 3), "tq": (2, 3)}
    assert row_of(tab, "00aaaaaa").scores[key].pareto


def test_without_a_member_there_is_no_average_and_a_note_says_so(reader: Any, sweep: Any) -> None:
    add(reader, sweep, "00aaaaaa", "svd")
    add(reader, sweep, "01aaaaaa", "kronecker", tasks=[task for task in SIZES if task not in ("wnli", "stsb")])
    (tab,) = board(reader).tabs
    keys = averages(tab)
    lacks = row_of(tab, "01aaaaaa")
    assert set(keys.values()) & set(lacks.scores) == {keys[SEVEN]}
    assert f"{NINE}: none for kronecker without glue.stsb.v1, glue.wnli.v1" in tab.notes
    assert f"{EIGHT}: none for kronecker without glue.stsb.v1" in tab.notes
    text = markdown(board(reader))
    assert "| kronecker | – | – |" in text
    assert "arXiv 2110.08152" in text


def test_a_few_tasks_are_no_benchmark(reader: Any, sweep: Any) -> None:
    add(reader, sweep, "00aaaaaa", "svd", tasks=["cola", "sst2", "mrpc"])
    (tab,) = board(reader).tabs
    assert averages(tab) == {}
    assert not [note for note in tab.notes if "average" in note]


def test_models_that_were_fine_tuned_otherwise_share_no_average(reader: Any, sweep: Any) -> None:
    add(reader, sweep, "00aaaaaa", "svd")
    add(reader, sweep, "01aaaaaa", "kronecker", settings="1 epochs")
    (tab,) = board(reader).tabs
    found = [column.key for column in tab.columns if column.protocol == NINE]
    assert len(found) == 2
    assert [len(set(found) & set(row.scores)) for row in tab.rows] == [1, 1]
    assert not [comparison for comparison in tab.comparisons if comparison.column in found]


def test_without_items_an_average_has_no_interval(reader: Any, sweep: Any) -> None:
    add(reader, sweep, "00aaaaaa", "svd")
    del reader.files["00aaaaaa-0-glue-rte"]
    (tab,) = board(reader).tabs
    summary = row_of(tab, "00aaaaaa").scores[averages(tab)[NINE]].summary
    assert (summary.low, summary.basis, summary.note) == (None, "no interval", "items file is gone")


def test_other_metrics_stay_off_the_board(reader: Any, sweep: Any) -> None:
    add(reader, sweep, "00aaaaaa", "svd")
    (tab,) = board(reader).tabs
    shown: Mapping[str, int] = {c.protocol: 0 for c in tab.columns}
    assert len(tab.columns) == len(shown) == len(SIZES) + len(AVERAGES)
    assert set(row_of(tab, "00aaaaaa").scores) == {column.key for column in tab.columns}
    assert f"{NINE} score value" in as_csv(board(reader))
    assert dumps(board(reader)) == dumps(board(reader))
