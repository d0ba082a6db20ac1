"""Ranks that the data support: pairwise tests, Holm's correction, rank ranges, who leads, and the Pareto front."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from math import isfinite

import numpy as np

from results.blocks import block_length
from results.bootstrap import share_best
from results.model import Column, Comparison, Group, Row, Score
from results.pairwise import compare_all
from results.power import Detectable, detectable
from results.scores import Evidence
from results.statistics import SIGNIFICANCE, Difference, holm, stack

SIZE_SLACK = 0.02
"""Sizes that differ by less than a budget's tolerance count as equal on the Pareto front."""


def rank(
    groups: Sequence[Group], columns: Iterable[Column], evidence: Mapping[str, Evidence]
) -> tuple[list[Group], list[Comparison], dict[str, Detectable]]:
    """Rank the complete rows of each group in each column, stale ones left out; groups are never compared.

    A row's range is 1 + (rows significantly better) .. n - (rows significantly worse), at 5 % after Holm over all
    tested pairs of the column. Pairs that cannot be tested count as ties.
    """
    comparisons: list[Comparison] = []
    limits: dict[str, Detectable] = {}
    for column in columns:
        ranked = [_ranked(group, column) for group in groups]
        pairs = [(a.id, b.id) for rows in ranked for a, b in combinations(rows, 2)]
        tests = [test for rows in ranked for test in compare_all([evidence[row.id].samples[column] for row in rows])]
        found = _adjust([_comparison(column, *pair, test) for pair, test in zip(pairs, tests, strict=True)])
        comparisons += found
        groups = [Group(group.recipe, _with_ranks(group, column, found, evidence)) for group in groups]
        seeds = [
            [sample.value for sample in evidence[row.id].samples[column].values()] for rows in ranked for row in rows
        ]
        spreads = [test.spread for test in tests if test.spread is not None]
        if limit := detectable(spreads, sum(test.p_value is not None for test in tests), seeds):
            limits[column.key] = limit
    return list(groups), comparisons, limits


def _ranked(group: Group, column: Column) -> list[Row]:
    return [
        row
        for row in group.rows
        if row.counts and column.key in row.scores and isfinite(row.scores[column.key].summary.value)
    ]


def _comparison(column: Column, a: str, b: str, d: Difference) -> Comparison:
    error = None if d.spread is None else d.spread.error
    return Comparison(column.key, a, b, d.difference, d.low, d.high, d.p_value, None, d.basis, error, d.effect)


def _adjust(comparisons: Sequence[Comparison]) -> list[Comparison]:
    adjusted = iter(holm([c.p_value for c in comparisons if c.p_value is not None]))
    return [c if c.p_value is None else replace(c, p_holm=next(adjusted)) for c in comparisons]


def _with_ranks(
    group: Group, column: Column, comparisons: Sequence[Comparison], evidence: Mapping[str, Evidence]
) -> list[Row]:
    ranked = {row.id for row in _ranked(group, column)}
    best = _best(sorted(ranked), column, evidence)
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
            best=best.get(row.id),
        )
        rows.append(replace(row, scores={**row.scores, column.key: score}))
    return rows


def _best(names: Sequence[str], column: Column, evidence: Mapping[str, Evidence]) -> dict[str, float]:
    """Of each row the share of resamples in which it is the best, over the seeds and items that all rows have."""
    of_rows = [evidence[name].samples[column] for name in names]
    seeds = sorted(set.intersection(*(set(samples) for samples in of_rows))) if len(names) > 1 else []
    stacked = stack([samples[seed] for samples in of_rows for seed in seeds]) if seeds else None
    if stacked is None:
        return {}
    sign = 1 if column.higher_is_better else -1
    value_KS = sign * np.array([[samples[seed].value for seed in seeds] for samples in of_rows])
    influence_KSN = sign * stacked.influence_SN.reshape(len(names), len(seeds), -1)
    mean_KN = influence_KSN.mean(axis=1)
    length = max(block_length(row_N) for row_N in mean_KN - mean_KN.mean(axis=0)) if stacked.neighbours else 1
    return dict(zip(names, map(float, share_best(value_KS, influence_KSN, length=length)), strict=True))


def mark_front(rows: Sequence[Row], columns: Iterable[Column]) -> list[Row]:
    """Mark the rows that no other row beats in quality at no more parameters; means are compared, not intervals."""
    marked = list(rows)
    for column in columns:
        points = {
            row.id: (row.size.params, _goodness(row.scores[column.key], column))
            for row in rows
            if row.counts and row.size is not None and column.key in row.scores
        }
        front = {
            name
            for name, (size, good) in points.items()
            if isfinite(good)
            and not any(other > good and weight <= size * (1 + SIZE_SLACK) for weight, other in points.values())
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
