"""Means over tasks, as benchmarks and papers print them: computed columns of the board.

    score of a task = mean of its metrics        average = mean of the tasks' scores

Definitions name protocols and metrics; of a task the average takes what the record holds. One seed's average needs
every member of that seed, measured on one version of the data and trained in one way: else there is none.

An average's items are all its tasks' items. With weight w_k of a metric k over n_k items, whose influence values are
d_ki (`results.influence`), item i of the N in all has

    d_i = sqrt(N (N - 1)) sum_k w_k d_ki / sqrt(n_k (n_k - 1))

so that sum_i d_i^2 / (N (N - 1)) is the variance of the average: items that two metrics of a task share are counted
with their covariance, and different tasks are independent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from sys import intern
from typing import Any

import numpy as np
from numpy.typing import NDArray

from results.influence import Floats
from results.items import Sample
from results.model import Column, Row

BOTH = ("f1", "accuracy")


@dataclass(frozen=True, kw_only=True)
class Average:
    """A mean over tasks."""

    protocol: str
    """The name of its column."""
    tasks: Mapping[str, Sequence[str]]
    """Protocol -> the metrics whose mean is the task's score."""
    about: str
    """What a reader has to know, for the board's notes."""


GLUE = {
    "glue.cola.v1": ("matthews",),
    "glue.sst2.v1": ("accuracy",),
    "glue.mrpc.v1": BOTH,
    "glue.stsb.v1": ("pearson", "spearman"),
    "glue.qqp.v1": BOTH,
    "glue.mnli.v1": ("accuracy", "accuracy_mismatched"),
    "glue.qnli.v1": ("accuracy",),
    "glue.rte.v1": ("accuracy",),
    "glue.wnli.v1": ("accuracy",),
}
AVERAGES = (
    Average(
        protocol="glue.average.v1",
        tasks=GLUE,
        about="mean over GLUE's nine tasks, of each the mean of its metrics (validation split)",
    ),
    Average(
        protocol="glue.average_without_wnli.v1",
        tasks={name: metrics for name, metrics in GLUE.items() if name != "glue.wnli.v1"},
        about="mean over GLUE's tasks without WNLI, of each the mean of its metrics (validation split)",
    ),
    Average(
        protocol="glue.kngpt2_average.v1",
        tasks={
            "glue.cola.v1": ("matthews",),
            "glue.rte.v1": ("accuracy",),
            "glue.mrpc.v1": ("f1",),
            "glue.sst2.v1": ("accuracy",),
            "glue.mnli.v1": ("accuracy",),
            "glue.qnli.v1": ("accuracy",),
            "glue.qqp.v1": ("accuracy",),
        },
        about=(
            "mean over KnGPT2's seven tasks (arXiv 2110.08152): CoLA's Matthews, MRPC's F1, else accuracy, MNLI's of "
            "the matched part; which metric the paper takes of MRPC, QQP and MNLI is assumed"
        ),
    ),
)
METRIC, UNIT = "score", "fraction"
"""Of an average's column."""
MEMBERS = frozenset((task, metric) for each in AVERAGES for task, metrics in each.tasks.items() for metric in metrics)


def averages(samples: Mapping[Column, Mapping[int, Sample]]) -> dict[Column, dict[int, Sample]]:
    """The columns of `AVERAGES` that some seed has all members of, from a row's samples: column -> seed -> sample."""
    final = [column for column in samples if column.when == "final"]
    found: dict[Column, dict[int, Sample]] = {}
    for seed in sorted({seed for column in final for seed in samples[column]}):
        there = {(column.protocol, column.metric): column for column in final if seed in samples[column]}
        for average in AVERAGES:
            weights = _weights(average)
            if weights.keys() <= there.keys():
                parts = [(there[member], weight, samples[there[member]][seed]) for member, weight in weights.items()]
                found.setdefault(_column(average, [column for column, *_ in parts]), {})[seed] = pooled_mean(parts)
    return found


def _weights(average: Average) -> dict[tuple[str, str], float]:
    """(Protocol, metric) -> its weight; they add up to 1."""
    share = 1 / len(average.tasks)
    return {(task, metric): share / len(metrics) for task, metrics in average.tasks.items() for metric in metrics}


def _column(average: Average, members: Sequence[Column]) -> Column:
    """Its data are those of its members, and how their models were trained."""
    digest = hashlib.sha256("\n".join(sorted(column.key for column in members)).encode()).hexdigest()
    return Column(average.protocol, METRIC, f"sha256:{digest}", "", UNIT, higher_is_better=True)


def pooled_mean(parts: Sequence[tuple[Column, float, Sample]]) -> Sample:
    """The weighted sum with its items; metrics of one task are over the same items, or over different ones."""
    value = sum(weight * sample.value for _, weight, sample in parts)
    missing = next((sample.missing for _, _, sample in parts if sample.missing), "")
    pooled: list[tuple[str, NDArray[Any], Floats]] = []
    for column, weight, sample in parts:
        if sample.items is None or sample.influence_N is None:
            return Sample(value, missing=missing)
        n, task = len(sample.items), column.protocol
        moved_N = weight * sample.influence_N / sqrt(n * (n - 1))
        same = next(
            (p for p, each in enumerate(pooled) if each[0] == task and np.array_equal(each[1], sample.items)), None
        )
        if same is None:
            pooled.append((task, sample.items, moved_N))
        else:
            pooled[same] = (task, sample.items, pooled[same][2] + moved_N)
    names = [intern(f"{task} {item}") for task, items, _ in pooled for item in items]
    influence_N = sqrt(len(names) * (len(names) - 1)) * np.concatenate([moved_N for *_, moved_N in pooled])
    return Sample(value, items=np.array(names, dtype=object), influence_N=influence_N)


def average_notes(columns: Sequence[Column], rows: Sequence[Row]) -> Iterator[str]:
    """What each average of a tab is, and which tasks a row lacks that has most of them and so no average."""
    for average in AVERAGES:
        own = [column.key for column in columns if column.protocol == average.protocol]
        if own:
            yield f"{average.protocol} is the {average.about}"
        lacking: dict[str, list[str]] = {}
        for row in rows:
            if row.status == "complete" and not set(own) & set(row.scores):
                measured = {key.partition("|")[0] for key in row.scores}
                missing = [task for task in average.tasks if task not in measured]
                if missing and 2 * len(missing) < len(average.tasks):
                    lacking.setdefault(", ".join(missing), []).append(row.label)
        for tasks, labels in lacking.items():
            yield f"{average.protocol}: none for {', '.join(labels)} without {tasks}"
