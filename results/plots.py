"""What the page draws: traces as plain data, styled in the browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, floor, isfinite, log10
from typing import Any

from results.formatting import titles
from results.items import scale_of
from results.model import Board, Column, Row, Tab

PARTS = ("loss", "ce", "kd", "taps")
"""What a row's own plot draws of its loss curve; the parts are unweighted."""
NUM_COLOURS = 8
"""Colours in the page's palette; lines are dashed once they repeat."""


def colours(board: Board) -> dict[str, int]:
    """Method label -> its place in the palette, the same on every tab and in every plot."""
    labels = {row.label for tab in board.tabs for group in tab.groups for row in group.rows}
    return {label: place for place, label in enumerate(sorted(labels))}


def quality(board: Board, tab: Tab, palette: Mapping[str, int]) -> list[dict[str, Any]]:
    """One plot per column: the metric against parameters, over all budgets of the tab's teacher."""
    names = titles(tab.columns)
    rows = {
        row.id: (group.recipe, row)
        for other in board.tabs
        if other.teacher == tab.teacher
        for group in other.groups
        for row in group.rows
    }
    plots = []
    for column in tab.columns:
        lines: dict[tuple[str, str], list[Row]] = {}
        for recipe, row in rows.values():
            if _drawable(row, column):
                lines.setdefault((row.label, recipe), []).append(row)
        traces = [_line(lines[key], key, column, tab, palette) for key in sorted(lines)]
        references = [_reference(row, column) for row in tab.references if _drawable(row, column)]
        plots.append(
            {
                "title": f"{names[column.key]} {column.arrow}",
                "log": scale_of(column.metric) == "log",
                "traces": traces,
                "references": references,
            }
        )
    return plots


def _drawable(row: Row, column: Column) -> bool:
    return row.size is not None and column.key in row.scores and isfinite(row.scores[column.key].summary.value)


def _line(
    rows: Sequence[Row], key: tuple[str, str], column: Column, tab: Tab, palette: Mapping[str, int]
) -> dict[str, Any]:
    label, recipe = key
    points = [
        {"here": row.budget == tab.budget, "row": row.id, **_point(row, column)}
        for row in sorted(rows, key=lambda row: (row.size.params if row.size else 0, row.id))
    ]
    return {"name": f"{label} · {recipe}", "colour": palette[label], "points": points}


def _reference(row: Row, column: Column) -> dict[str, Any]:
    return {"name": row.label, **_point(row, column)}


def _point(row: Row, column: Column) -> dict[str, Any]:
    assert row.size is not None
    summary = row.scores[column.key].summary
    return {
        "params": row.size.params,
        "value": summary.value,
        "low": summary.value if summary.low is None else summary.low,
        "high": summary.value if summary.high is None else summary.high,
    }


def curves(tab: Tab, palette: Mapping[str, int]) -> list[dict[str, Any]]:
    """Training loss against tokens (steps where a curve has no tokens), one line per row and seed."""
    return [
        {
            "name": row.label,
            "colour": palette[row.label],
            "seed": seed.seed,
            "x": _progress(seed.curve),
            "y": _values(seed.curve, "loss"),
        }
        for group in tab.groups
        for row in group.rows
        for seed in row.seeds
        if seed.curve
    ]


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


def _values(curve: Sequence[Mapping[str, float]], name: str) -> list[float | None]:
    found = [point.get(name, float("nan")) for point in curve]
    return [float(f"{value:.6g}") if isfinite(value) else None for value in found]


def _progress(curve: Sequence[Mapping[str, float]]) -> list[float | None]:
    """Training tokens, or steps where a curve has no tokens."""
    return [point.get("tokens", point.get("step")) for point in curve]


def log_ticks(lines: Sequence[Mapping[str, Any]]) -> list[float]:
    """Round values (1, 2, 5 times powers of ten) for a logarithmic scale; none where a linear one is better.

    Logarithmic is better where all values are above zero and the largest is 20 times the smallest or more.
    """
    values = [value for line in lines for value in line["y"] if value is not None]
    if not values or min(values) <= 0 or max(values) < 20 * min(values):
        return []
    powers = range(floor(log10(min(values))), ceil(log10(max(values))) + 1)
    candidates = [float(f"{digit}e{power}") for power in powers for digit in (1, 2, 5)]
    return [tick for tick in candidates if min(values) <= tick <= max(values)]
