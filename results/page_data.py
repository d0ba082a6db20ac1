"""The board as the plain data that the page draws: numbers to sort by, texts to show, nothing that is markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from results.changes import sentences
from results.formatting import (
    before,
    count,
    duration,
    gain_cell,
    interval,
    legend,
    ranks,
    resolution,
    seeds,
    status,
    titles,
    value,
)
from results.model import Board, Column, Row, Score, Tab, Twin
from results.plots import AXES, axes, colours, columns_of, fronts, has_curves, is_log, recipe_key, recipes, stages
from results.reported_view import HEAD, NUMERIC, line, number, on_tab
from results.reported_view import LEGEND as REPORTED_LEGEND
from results.speed_view import latency
from results.table import heading

MAX_TIED = 6
"""Rows that are named as not separable; of more, the number is told."""
KINDS = {"glue": "glue.", "perplexity": "ppl"}
"""Views of their own: the protocols with this in their name, or in their metric's."""


def board_data(board: Board) -> dict[str, Any]:
    """Everything that the page shows before a row is opened."""
    palette = colours(board)
    marked = {teacher: _fronts(board, teacher) for teacher in {tab.teacher for tab in board.tabs}}
    names = {teacher: column_names(columns_of(board, teacher)) for teacher in marked}
    return {
        "sweep": board.sweep or "",
        "message": board.message,
        "notes": list(board.notes),
        "rejected": [str(each) for each in board.rejected],
        "changes": _changes(board),
        "legend": legend(board),
        "axes": AXES,
        "stages": stages(row for tab in board.tabs for row in tab.rows),
        "tabs": [_tab(tab, palette, names[tab.teacher], marked[tab.teacher]) for tab in board.tabs],
    }


def _changes(board: Board) -> dict[str, Any] | None:
    """What changed since another board, a line each."""
    if board.changes is None:
        return None
    return {"title": f"Changed since {board.changes.since}", "lines": list(sentences(board.changes))}


def column_names(columns: Sequence[Column]) -> dict[str, str]:
    """Column key -> a heading that no other column has, which the address of a page names it by."""
    names: dict[str, str] = {}
    for key, title in titles(columns).items():
        same = sum(other == title or other.startswith(f"{title} ~") for other in names.values())
        names[key] = f"{title} ~{same + 1}" if same else title
    return names


def _fronts(board: Board, teacher: str) -> dict[tuple[str, str], list[str]]:
    """(row, column key) -> the axes on which the row is on a Pareto front among all budgets of its recipe."""
    found: dict[tuple[str, str], list[str]] = {}
    for rows in recipes(board, teacher).values():
        for column in columns_of(board, teacher):
            for axis, ids in fronts(rows, column).items():
                for id_ in ids:
                    found.setdefault((id_, column.key), []).append(axis)
    return found


def _tab(
    tab: Tab, palette: Mapping[str, int], names: Mapping[str, str], marked: Mapping[tuple[str, str], list[str]]
) -> dict[str, Any]:
    counts = [(sum(row.status == kind for row in tab.rows), kind) for kind in ("complete", "failed", "skipped")]
    counts += [(sum(bool(row.stale) for row in tab.rows), "stale")]
    spent = sum(row.cost.worker_s for row in [*tab.rows, *(twin.row for twin in tab.twins)])
    labels = {row.id: row.label for row in tab.rows}
    said = _said(tab)
    rows = [
        _row(row, place, name != "reference", tab, palette, names, marked, labels, said)
        for place, (name, members) in enumerate(tab.sections)
        for row in members
    ]
    return {
        "id": f"{tab.teacher}@{tab.budget}",
        "teacher": tab.teacher,
        "budget": tab.budget or "teacher",
        "heading": heading(tab),
        "summary": " · ".join([*(f"{n} {kind}" for n, kind in counts if n), f"{duration(spent)} of workers' time"]),
        "notes": list(tab.notes),
        "resolution": resolution(tab),
        "reported": _reported(tab),
        "columns": [_column(column, names[column.key]) for column in tab.columns],
        "sections": [name[0].upper() + name[1:] for name, _ in tab.sections],
        "rows": rows,
        "gains": [_gain(row, twin, tab, names) for row in tab.rows for twin in tab.twins_of(row)],
        "curves": has_curves(tab),
    }


def _reported(tab: Tab) -> dict[str, Any] | None:
    """What papers say, those by a protocol of the tab first; never ranked."""
    if not tab.reported:
        return None
    near, _ = on_tab(tab)
    claims = [*near, *(claim for claim in tab.reported if claim not in near)]
    numeric = [place for place, name in enumerate(HEAD) if name in NUMERIC]
    return {"head": list(HEAD), "numeric": numeric, "lines": [line(c) for c in claims], "legend": REPORTED_LEGEND}


def _said(tab: Tab) -> dict[tuple[str, str], str]:
    """(Row, column key) -> what papers report of a model of its method and size by the same protocol."""
    found: dict[tuple[str, str], list[str]] = {}
    for claim in tab.reported:
        for other in claim.measured:
            if other.same_size and claim.reported.column.match == "same":
                found.setdefault((other.row, other.column), []).append(number(claim.reported.value))
    return {place: f"reported {', '.join(dict.fromkeys(values))}" for place, values in found.items()}


def _column(column: Column, name: str) -> dict[str, Any]:
    direction = "higher is better" if column.higher_is_better else "lower is better"
    settings = f"; {column.settings}" if column.settings else ""
    views = {view: mark in column.protocol or mark in column.metric for view, mark in KINDS.items()}
    views["perplexity"] = is_log(column) and not views["glue"]
    return {
        "id": name,
        "protocol": column.protocol,
        "metric": name.removeprefix(column.protocol).strip(),
        "hint": f"{column.metric} in {column.unit or 'no unit'}, {direction}; data {column.data}{settings}",
        "higher": column.higher_is_better,
        "log": is_log(column),
        "view": next((view for view, shown in views.items() if shown), ""),
    }


def _row(
    row: Row,
    place: int,
    ranked: bool,
    tab: Tab,
    palette: Mapping[str, int],
    names: Mapping[str, str],
    marked: Mapping[tuple[str, str], list[str]],
    labels: Mapping[str, str],
    said: Mapping[tuple[str, str], str],
) -> dict[str, Any]:
    scores = {
        names[c.key]: _score(row.scores[c.key], marked.get((row.id, c.key), []), labels)
        for c in tab.columns
        if c.key in row.scores and isfinite(row.scores[c.key].summary.value)
    }
    data: dict[str, Any] = {
        "id": row.id,
        "method": row.method,
        "label": row.label,
        "fields": ", ".join(f"{name}={item}" for name, item in sorted(row.fields.items())),
        "section": place,
        "recipe": recipe_key(row),
        "status": row.status,
        "colour": palette.get(row.label) if ranked else None,
        "at": axes(row),
        "scores": scores,
        "seeds": row.num_complete,
        "seen": seeds(row),
        "store": row.store,
        "tokens": max((seed.tokens for seed in row.seeds), default=0),
        "worker_s": row.cost.worker_s,
        "cost": duration(row.cost.worker_s),
        "stages": {name: round(s, 3) for name, s in row.cost.worker_s_by_stage.items() if isfinite(s)},
    }
    if row.size:
        data |= {"params": count(row.size.params), "fraction": f"{row.size.params_fraction:.3f}"}
    if row.speed:
        data["latency"] = latency(row.speed)
    if row.verified:
        data |= {"mark": row.verified.mark, "verified": row.verified.text}
    for column in tab.columns:
        if (row.id, column.key) in said and names[column.key] in scores:
            scores[names[column.key]]["said"] = said[row.id, column.key]
    return data | {name: text for name, text in (("reason", row.reason), ("stale", row.stale)) if text}


def _score(score: Score, front: Sequence[str], labels: Mapping[str, str]) -> dict[str, Any]:
    s = score.summary
    data: dict[str, Any] = {"v": s.value, "t": value(s), "i": interval(s), "basis": s.basis, "seeds": s.seeds}
    if s.low is not None and s.high is not None and isfinite(s.low) and isfinite(s.high):
        data |= {"lo": s.low, "hi": s.high}
    if score.rank:
        data |= {"rank": list(score.rank), "r": ranks(score)}
        data["ties"] = [labels.get(id_, id_) for id_ in score.tied[:MAX_TIED]]
        data["tied"] = len(score.tied)
    data |= {"front": list(front)} if front else {}
    return data | ({"before": before(score)} if score.before else {})


def _gain(row: Row, twin: Twin, tab: Tab, names: Mapping[str, str]) -> dict[str, Any]:
    """What a row gains over one of its controls, in every column."""
    cells = {}
    for column in tab.columns:
        found = twin.gains.get(column.key)
        sortable = found is not None and isfinite(found.value)
        cells[names[column.key]] = {"t": gain_cell(twin, column), **({"v": found.value} if sortable and found else {})}
    control = twin.row
    return {
        "row": row.id,
        "label": row.label,
        "from": twin.gain_from,
        "control": control.id,
        "status": control.status,
        "stale": bool(row.stale or control.stale),
        "reason": status(control) if control.reason else "",
        "cells": cells,
        "cost": duration(control.cost.worker_s),
        "worker_s": control.cost.worker_s,
        "seeds": seeds(control),
    }
