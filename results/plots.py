"""What plots are drawn from, as plain data: axes, Pareto fronts, loss curves; styled where they are drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from math import isfinite
from typing import Any

import numpy as np

from results.items import scale_of
from results.model import Board, Column, Row, Tab
from results.ranking import SIZE_SLACK
from results.speed_view import latency_ms

PARTS = ("loss", "ce", "kd", "taps")
"""What a row's own plot draws of its loss curve; the parts are unweighted."""
AXES = {
    "params": "parameters",
    "bytes": "stored bytes",
    "macs": "multiply-adds per token",
    "latency": "latency, ms per token",
    "cost": "cost, worker-seconds a seed",
    "flops": "training FLOPs a seed",
}
"""What quality is plotted against: key -> title."""
STAGES = (
    "corpus", "tokenizer", "tokens", "teacher", "calibrate", "compress", "tune", "distill", "finetune", "evaluate",
    "profile",
)  # fmt: skip
"""The order in which a bar of costs has them."""
OKABE_ITO = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999933")
"""Colours that all readers can tell apart (Okabe & Ito, Color Universal Design, 2008), its yellow darkened to be seen
on white. A marker shape goes with each: no plot relies on colour alone."""


def axes(row: Row) -> dict[str, float]:
    """The row's place on each of `AXES`, those that are known and above zero, since the scales are logarithmic."""
    found: dict[str, float] = {"cost": row.cost.worker_s / len(row.seeds) if row.seeds else 0.0}
    found["flops"] = max((seed.flops for seed in row.seeds), default=0.0)
    if row.size:
        found |= {"params": row.size.params, "bytes": row.size.stored_bytes, "macs": row.size.macs_per_token}
    if row.speed:
        found["latency"] = latency_ms(row.speed)
    return {name: found[name] for name in AXES if isfinite(found.get(name, 0)) and found.get(name, 0) > 0}


def front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The Pareto front of points (weight, goodness), from light to heavy.

    A point is on it when none is better at no more weight; weights within `SIZE_SLACK` count as equal.
    """
    if not points:
        return []
    names = sorted(points, key=lambda name: (points[name][0], -points[name][1], name))
    weights = np.array([points[name][0] for name in names])
    best = list(accumulate((points[name][1] for name in names), max))
    reach = np.searchsorted(weights, weights * (1 + SIZE_SLACK), side="right")
    return [name for place, name in enumerate(names) if points[name][1] >= best[reach[place] - 1]]


def fronts(rows: Iterable[Row], column: Column) -> dict[str, list[str]]:
    """Axis -> ids of the rows on the Pareto front of `column` against it; `rows` are of one teacher and recipe."""
    scored = [row for row in rows if row.counts and drawable(row, column)]
    sign = 1 if column.higher_is_better else -1
    placed = [(row.id, axes(row), sign * row.scores[column.key].summary.value) for row in scored]
    return {axis: front({id_: (at[axis], good) for id_, at, good in placed if axis in at}) for axis in AXES}


def recipe_key(row: Row) -> str:
    """Rows of one key may be ranked against each other: the recipe kind, and of `shared` recipes the digest too."""
    return f"{row.recipe} {row.recipe_digest[:8]}" if row.recipe == "shared" else row.recipe


def recipes(board: Board, teacher: str) -> dict[str, list[Row]]:
    """Recipe key -> the ranked rows of a teacher, over all its budgets."""
    found: dict[str, dict[str, Row]] = {}
    for tab in board.tabs:
        for row in (row for group in tab.groups for row in group.rows if tab.teacher == teacher):
            found.setdefault(recipe_key(row), {})[row.id] = row
    return {key: list(found[key].values()) for key in sorted(found)}


def columns_of(board: Board, teacher: str) -> list[Column]:
    """The columns of all tabs of a teacher, each once."""
    return list({c.key: c for tab in board.tabs if tab.teacher == teacher for c in tab.columns}.values())


def drawable(row: Row, column: Column) -> bool:
    """Whether the row has a finite number in the column, above zero where the scale is logarithmic."""
    score = row.scores.get(column.key)
    return score is not None and isfinite(score.summary.value) and (score.summary.value > 0 or not is_log(column))


def is_log(column: Column) -> bool:
    """Whether the column is drawn on a logarithmic scale: perplexities are."""
    return scale_of(column.metric, column.protocol) == "log"


def colours(board: Board) -> dict[str, int]:
    """Method label -> its number in the palette and among the shapes, the same on every tab and in every plot."""
    labels = {row.label for tab in board.tabs for group in tab.groups for row in group.rows}
    return {label: place for place, label in enumerate(sorted(labels))}


def shape(number: int) -> int:
    """Which of seven shapes goes with a number: of 49 in a row, no two have both colour and shape in common."""
    return (number + number // 7) % 7


def stages(rows: Iterable[Row]) -> list[str]:
    """The stages that rows paid for, in the order of the work, then others."""
    found = {stage for row in rows for stage in row.cost.worker_s_by_stage}
    return [*(stage for stage in STAGES if stage in found), *sorted(found.difference(STAGES))]


def row_curves(row: Row) -> list[dict[str, Any]]:
    """The loss of one row and its parts, a line per seed and part; a part that is the loss itself is left out.

    Six digits are enough for a drawing; what is not finite is a gap.
    """
    lines = []
    for seed in row.seeds:
        loss = _values(seed.curve, "loss")
        for colour, part in enumerate(PARTS):
            values = _values(seed.curve, part)
            if any(value is not None for value in values) and (part == "loss" or values != loss):
                line = {"part": part, "colour": colour, "seed": seed.seed, "x": _progress(seed.curve), "y": values}
                lines.append(line)
    return lines


def has_curves(tab: Tab) -> bool:
    """Whether any ranked row of a tab was trained."""
    return any(seed.curve for group in tab.groups for row in group.rows for seed in row.seeds)


def _values(curve: Sequence[Mapping[str, float]], name: str) -> list[float | None]:
    found = [point.get(name, float("nan")) for point in curve]
    return [float(f"{value:.6g}") if isfinite(value) else None for value in found]


def _progress(curve: Sequence[Mapping[str, float]]) -> list[float | None]:
    """Training tokens, or steps where a curve has no tokens."""
    places = [point.get("tokens", point.get("step")) for point in curve]
    return [place if place is not None and isfinite(place) else None for place in places]
