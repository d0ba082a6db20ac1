"""What the page draws: traces as plain data, styled in the browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from results.formatting import titles
from results.items import scale_of
from results.model import Board, Column, Row, Tab

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
            "x": [point.get("tokens", point.get("step")) for point in seed.curve],
            "y": [point.get("loss") if isfinite(point.get("loss", float("nan"))) else None for point in seed.curve],
        }
        for group in tab.groups
        for row in group.rows
        for seed in row.seeds
        if seed.curve
    ]
