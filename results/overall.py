"""The overall score: tasks and perplexity in units of the teacher's distance to chance. Computed columns of the board.

    tasks      = (A(row) - A(chance)) / (A(teacher) - A(chance))     A = mean over the tasks of the mean of its metrics
    perplexity = (ln V - nll(row)) / (ln V - nll(teacher))             nll = ln of the perplexity per token
    score      = (tasks + perplexity) / 2

Chance is, for a task, the score of the best constant answer on its validation split; for a perplexity, the uniform
distribution over the V tokens of the vocabulary. The teacher has 1 and chance 0; a row may be above 1 or below 0. Each
definition names its tasks and its protocol, so that nothing is chosen once results are seen. A seed has a score where
it has every member, measured on the data and by the fine-tuning of the teacher's same seed; else there is none.

The teacher's own uncertainty is in the intervals. With x and t the row's and the teacher's value of a member on the
same items, c its chance, U = sum_k w_k (t_k - c_k) and r = sum_k w_k (x_k - c_k) / U, the delta method gives item i the
influence sum_k w_k (dx_ki - r dt_ki) / U; seeds are paired. The teacher's own score is 1 by definition, without error.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, log
from typing import Any

import numpy as np

from results.averages import AVERAGES, METRIC, Average, pooled_mean
from results.items import Sample
from results.model import Column, Row
from results.reader import Reader
from results.record import Record
from results.scores import Evidence

REFERENCE = "identity"
PARTS = ("tasks", "perplexity")
UNIT = "of the teacher's distance to chance"
_PER_TOKEN = "ppl"
_NAME = re.compile(r"[A-Za-z0-9._-]+")

LABELS: Mapping[str, tuple[int, ...]] = {
    "glue.sst2.v1": (428, 444),
    "glue.mrpc.v1": (129, 279),
    "glue.qqp.v1": (25_545, 14_885),
    "glue.mnli.v1": (3_479, 3_123, 3_213),
    "glue.mnli.v1 mismatched": (3_463, 3_129, 3_240),
    "glue.qnli.v1": (2_702, 2_761),
    "glue.rte.v1": (146, 131),
    "glue.wnli.v1": (40, 31),
    "pydoc.reversed.v1": (1, 1),
    "pydoc.follows.v1": (1, 1),
}
"""Examples of each class in the validation split of a protocol's version, in the order of the classes; for the embedded
tasks, whose classes alternate, their proportion."""


def chance(protocol: str, metric: str) -> float:
    """The best constant answer's score: the share of the largest class; F1 of saying yes, 2 p / (1 + p); else 0."""
    if metric in ("matthews", "pearson", "spearman"):
        return 0.0
    counts = LABELS[f"{protocol} mismatched" if metric == "accuracy_mismatched" else protocol]
    if metric == "f1":
        yes = counts[1] / sum(counts)
        return 2 * yes / (1 + yes)
    return max(counts) / sum(counts)


@dataclass(frozen=True, kw_only=True)
class Overall:
    """A definition: a mean over tasks and a perplexity per token."""

    protocol: str
    """The name of its columns."""
    tasks: Mapping[str, Sequence[str]]
    """Protocol -> the metrics whose mean is the task's score."""
    perplexity: str
    about: str

    @property
    def weights(self) -> dict[tuple[str, str], float]:
        """(Protocol, metric) of a task -> its weight; they add up to 1."""
        share = 1 / len(self.tasks)
        return {(task, metric): share / len(metrics) for task, metrics in self.tasks.items() for metric in metrics}


def _average(protocol: str) -> Average:
    return next(each for each in AVERAGES if each.protocol == protocol)


_BLOCKS = "wikitext2_blocks.token_ppl.v1"
OVERALLS = (
    Overall(
        protocol="overall.glue.v1",
        tasks=_average("glue.average_without_wnli.v1").tasks,
        perplexity=_BLOCKS,
        about="glue.average_without_wnli.v1",
    ),
    Overall(
        protocol="overall.glue_kngpt2.v1",
        tasks=_average("glue.kngpt2_average.v1").tasks,
        perplexity=_BLOCKS,
        about="glue.kngpt2_average.v1",
    ),
    Overall(
        protocol="overall.cola_sst2.v1",
        tasks={"glue.cola.v1": ("matthews",), "glue.sst2.v1": ("accuracy",)},
        perplexity=_BLOCKS,
        about="the mean of CoLA's Matthews and SST-2's accuracy",
    ),
    Overall(
        protocol="overall.pydoc.v1",
        tasks={"pydoc.reversed.v1": ("accuracy",), "pydoc.follows.v1": ("accuracy",)},
        perplexity="pydoc.token_ppl.v1",
        about="the mean accuracy of the two embedded tasks",
    ),
)


def with_overall(
    cells: Mapping[str, Sequence[Record]], evidence: Mapping[str, Evidence], reader: Reader
) -> dict[str, Evidence]:
    """The evidence of every row, with the overall scores of those whose teacher was measured by the same build."""
    teachers = {}
    for name, records in cells.items():
        cell = records[0].cell
        if cell.method != REFERENCE or cell.control or not _has_members(evidence[name]):
            continue
        if vocabulary := _vocabulary(records, reader):
            teachers[_build(records)] = _Teacher(_build(records), evidence[name], vocabulary)
    found = dict(evidence)
    for name, records in cells.items():
        teacher = teachers.get(_build(records))
        if teacher and _has_members(evidence[name]):
            found[name] = _added(evidence[name], teacher)
    return found


@dataclass(frozen=True)
class _Teacher:
    """What one build of a teacher scores, and the size of its vocabulary."""

    build: tuple[str, str]
    evidence: Evidence
    vocabulary: int


def _has_members(evidence: Evidence) -> bool:
    """Whether it has all members of some definition, on whatever data."""
    there = {(column.protocol, column.metric) for column in evidence.samples}
    return any({*each.weights, (each.perplexity, _PER_TOKEN)} <= there for each in OVERALLS)


def _build(records: Sequence[Record]) -> tuple[str, str]:
    """A teacher's name and the stage that made it."""
    last = records[-1]
    return last.cell.teacher, last.stages.get("teacher", "")


def _vocabulary(records: Sequence[Record], reader: Reader) -> int | None:
    """V: recorded beside the cell; of older records read from the teacher's configuration, where the store has it."""
    for record in records:
        recorded = record.provenance.get("vocabulary")
        if isinstance(recorded, int) and recorded > 1:
            return recorded
    key = records[-1].stages.get("teacher", "")
    try:
        home = f"artifacts/teacher/{_plain_name(key)}"
        attempt = json.loads(reader.read_bytes(f"{home}/manifest.json"))["attempt"]
        size = json.loads(reader.read_bytes(f"{home}/{_plain_name(attempt)}/config.json"))["vocab_size"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return size if isinstance(size, int) and size > 1 else None


def _plain_name(name: Any) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name) or set(name) == {"."}:
        raise ValueError(f"{name!r} is no name of a file")
    return name


def _added(row: Evidence, teacher: _Teacher) -> Evidence:
    samples = {column: dict(by_seed) for column, by_seed in row.samples.items()}
    values = {column: dict(by_seed) for column, by_seed in row.values.items()}
    for overall in OVERALLS:
        for column, seed, sample in _scores(overall, row, teacher):
            samples.setdefault(column, {})[seed] = sample
            values.setdefault(column, {})[seed] = sample.value
    return Evidence(samples, values)


def _scores(overall: Overall, row: Evidence, teacher: _Teacher) -> Iterator[tuple[Column, int, Sample]]:
    """(Column, seed, sample) of the score and of its parts."""
    its = teacher.evidence
    ours = [column for column in row.samples if column.when == "final" and column in its.samples]
    weights = overall.weights
    for seed in sorted({seed for column in ours for seed in row.samples[column]}):
        there = {
            (column.protocol, column.metric): column
            for column in ours
            if seed in row.samples[column] and seed in its.samples[column]
        }
        perplexity = there.get((overall.perplexity, _PER_TOKEN))
        if perplexity is None or not weights.keys() <= there.keys():
            continue
        members = {there[name]: (weight, chance(*name)) for name, weight in weights.items()}
        tasks = _part(members, seed, row, its)
        likelihood = _part({perplexity: (-1.0, log(teacher.vocabulary))}, seed, row, its)
        if tasks is None or likelihood is None:
            continue
        both = [(column, weight / 2, sample) for column, weight, sample in [*tasks, *likelihood]]
        columns = [*members, perplexity]
        for metric, parts in ((METRIC, both), (PARTS[0], tasks), (PARTS[1], likelihood)):
            yield _column(overall, metric, columns, teacher), seed, pooled_mean(parts)


def _part(
    members: Mapping[Column, tuple[float, float]], seed: int, row: Evidence, teacher: Evidence
) -> list[tuple[Column, float, Sample]] | None:
    """The members of one part as (x - c) / U, to be added up by their weights; None where the teacher has no distance.

    Args:
        members: column -> weight and chance; a negative weight where lower is better.
    """
    pairs = [(c, w, at, row.samples[c][seed], teacher.samples[c][seed]) for c, (w, at) in members.items()]
    unit = sum(weight * (its.value - at) for _, weight, at, _, its in pairs)
    if not (isfinite(unit) and unit > 0):
        return None
    score = sum(weight * (own.value - at) for _, weight, at, own, _ in pairs) / unit
    return [(c, weight, _relative(own, its, at, unit, score)) for c, weight, at, own, its in pairs]


def _relative(own: Sample, its: Sample, at: float, unit: float, score: float) -> Sample:
    """(x - c) / U, whose items move it by (dx - r dt) / U."""
    value = (own.value - at) / unit
    missing = own.missing or its.missing
    if own.items is None or own.influence_N is None or its.items is None or its.influence_N is None:
        return Sample(value, missing=missing or "no items stored")
    if not np.array_equal(own.items, its.items):
        return Sample(value, missing="items are not the teacher's")
    return replace(own, value=value, scale="linear", influence_N=(own.influence_N - score * its.influence_N) / unit)


def _column(overall: Overall, metric: str, members: Sequence[Column], teacher: _Teacher) -> Column:
    """Its data are those of its members, how their models were trained, the teacher and V."""
    made_of = [*sorted(column.key for column in members), *teacher.build, str(teacher.vocabulary)]
    digest = hashlib.sha256("\n".join(made_of).encode()).hexdigest()
    return Column(overall.protocol, metric, f"sha256:{digest}", "", UNIT, higher_is_better=True)


def overall_notes(columns: Sequence[Column], rows: Sequence[Row]) -> Iterator[str]:
    """What each overall score of a tab is, and which complete rows have none."""
    for overall in OVERALLS:
        own = [column.key for column in columns if column.protocol == overall.protocol]
        if not own:
            continue
        yield (
            f"{overall.protocol} is the mean of two parts, {overall.about} and ln perplexity of {overall.perplexity}, "
            "each in units of the teacher's distance to chance: teacher 1, chance 0"
        )
        without = [row.label for row in rows if row.status == "complete" and not set(own) & set(row.scores)]
        if without:
            yield f"{overall.protocol}: none for {', '.join(without)}, which lack a member on the teacher's data"
