"""Ranks that the data support: pairwise tests, Holm's correction, rank ranges, and the Pareto front."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from math import isfinite

from results.model import Column, Comparison, Group, Row, Score
from results.scores import Evidence
from results.statistics import SIGNIFICANCE, compare, holm

SIZE_SLACK = 0.02
"""Sizes that differ by less than a budget's tolerance count as equal on the Pareto front."""


def rank(
    groups: Sequence[Group], columns: Iterable[Column], evidence: Mapping[str, Evidence]
) -> tuple[list[Group], list[Comparison]]:
    """Rank the complete rows of each group in each column; rows of different groups are never compared.

    A row's range is 1 + (rows significantly better) .. n - (rows significantly worse), at 5 % after Holm over all
    tested pairs of the column. Pairs that cannot be tested count as ties.
    """
    comparisons: list[Comparison] = []
    for column in columns:
        tested = [_test(column, a, b, evidence) for group in groups for a, b in combinations(_ranked(group, column), 2)]
        found = _adjust(tested)
        comparisons += found
        groups = [Group(group.recipe, _with_ranks(group, column, found)) for group in groups]
    return list(groups), comparisons


def _ranked(group: Group, column: Column) -> list[Row]:
    return [
        row
        for row in group.rows
        if row.status == "complete" and column.key in row.scores and isfinite(row.scores[column.key].summary.value)
    ]


def _test(column: Column, a: Row, b: Row, evidence: Mapping[str, Evidence]) -> Comparison:
    d = compare(evidence[a.id].samples[column], evidence[b.id].samples[column])
    return Comparison(column.key, a.id, b.id, d.difference, d.low, d.high, d.p_value, None, d.basis)


def _adjust(comparisons: Sequence[Comparison]) -> list[Comparison]:
    adjusted = iter(holm([c.p_value for c in comparisons if c.p_value is not None]))
    return [c if c.p_value is None else replace(c, p_holm=next(adjusted)) for c in comparisons]


def _with_ranks(group: Group, column: Column, comparisons: Sequence[Comparison]) -> list[Row]:
    ranked = {row.id for row in _ranked(group, column)}
    beats = {
        (c.a, c.b) if (c.difference > 0) == column.higher_is_better else (c.b, c.a)
        for c in comparisons
        if c.p_holm is not None and c.p_holm < SIGNIFICANCE
    }
    rows = []
    for row in group.rows:
        if row.id not in ranked:
            rows.append(row)
            continue
        better = {other for other in ranked if (other, row.id) in beats}
        worse = {other for other in ranked if (row.id, other) in beats}
        score = replace(
            row.scores[column.key],
            rank=(1 + len(better), len(ranked) - len(worse)),
            tied=tuple(sorted(ranked - better - worse - {row.id})),
        )
        rows.append(replace(row, scores={**row.scores, column.key: score}))
    return rows


def mark_front(rows: Sequence[Row], columns: Iterable[Column]) -> list[Row]:
    """Mark the rows that no other row beats in quality at no more parameters; means are compared, not intervals."""
    marked = list(rows)
    for column in columns:
        points = {
            row.id: (row.size.params, _goodness(row.scores[column.key], column))
            for row in rows
            if row.status == "complete" and row.size is not None and column.key in row.scores
        }
        front = {
            name
            for name, (size, good) in points.items()
            if not any(other > good and weight <= size * (1 + SIZE_SLACK) for weight, other in points.values())
        }
        marked = [
            replace(row, scores={**row.scores, column.key: replace(row.scores[column.key], pareto=True)})
            if row.id in front
            else row
            for row in marked
        ]
    return marked


def _goodness(score: Score, column: Column) -> float:
    value = score.summary.value if column.higher_is_better else -score.summary.value
    return value if isfinite(value) else float("-inf")
