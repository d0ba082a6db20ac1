"""The leaderboard, computed from the store alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from math import isfinite
from typing import Any

import numpy as np

from results.averages import average_notes
from results.board_notes import damage, rejection
from results.claims import claims
from results.cost import count_users, share
from results.gains import beside
from results.load import current, description, newest
from results.model import Board, Column, Group, Row, Seed, Tab
from results.overall import overall_notes, with_overall
from results.plain_text import plain, plain_data
from results.ranking import mark_front, rank
from results.reader import Current, Reader
from results.record import Record
from results.scores import Evidence, gather, score
from results.stale import Present, mark_stale
from results.training import drawable, student_training, unequal_tokens
from results.verification import of_row, verifications

RECIPES = ("shared", "paper", "none")
"""The order of the groups in a tab."""
REFERENCE = "identity"
REPRODUCED = ("sweep", "code")
"""Parts of a record's provenance that `weighin reproduce` prints, and that a board has no room for."""


def board(reader: Reader, sweep: str | None = None, present: Present | None = None, *, curves: bool = True) -> Board:
    """The board of one sweep, or of everything in the store; without loss curves where no rendering needs them.

    A tab per (teacher, budget); rows of different recipe kinds are in separate groups and never ranked together, nor
    are `shared` recipes that differ. Controls stand beside their rows and are never ranked. Files that are no readable
    records are named in `rejected`. `present` is what the present code offers, by which rows are stale.
    """
    with np.errstate(all="ignore"):  # Hostile numbers become infinite, and are shown so.
        return _board(current(reader, sweep, curves=curves), reader, sweep, present)


def _board(found: Current, reader: Reader, sweep: str | None, present: Present | None) -> Board:
    records = found.records
    told: dict[str, Any] = {"notes": (*found.notes, *rejection(found.rejected)), "rejected": tuple(found.rejected)}
    if not records:
        message = ". ".join([_nothing(sweep, set(found.sweeps)), *told["notes"]])
        return Board(sweep, message=message, **told)
    rows, evidence = build_rows(records, reader)
    rows = with_verifications(mark_stale(rows, evidence, present), records, reader)
    tabs = []
    for teacher in sorted({row.teacher for row in rows}):
        own = [row for row in rows if row.teacher == teacher and row.control is None]
        front = {row.id: row for group in _groups(own) for row in mark_front(group.rows, _columns(own, evidence))}
        controls = [row for row in rows if row.control]
        tabs += _tabs(teacher, [front.get(row.id, row) for row in own], controls, evidence)
    tabs = [replace(tab, notes=(*tab.notes, *damage(tab), *told["notes"])) for tab in tabs]
    return Board(sweep, tuple(tabs), **told)


def build_rows(records: Sequence[Record], reader: Reader) -> tuple[list[Row], dict[str, Evidence]]:
    """Every row with its scores, not ranked yet, and the samples behind them; `records` are sorted by row and seed."""
    users = count_users(records)
    cells = {name: list(members) for name, members in groupby(records, key=lambda record: record.row)}
    gathered = {name: gather(members, reader, main_only=True) for name, members in cells.items()}
    evidence = with_overall(cells, gathered, reader)
    rows = [build_row(members, evidence[name], users) for name, members in cells.items()]
    return rows, {row.id: evidence[name] for row, name in zip(rows, cells, strict=True)}


def with_verifications(rows: Iterable[Row], records: Iterable[Record], reader: Reader) -> list[Row]:
    """The rows with what is known of them from `weighin verify`."""
    found = verifications(reader)
    if not found:
        return list(rows)
    cells: dict[str, list[Record]] = {}
    for record in records:
        cells.setdefault(plain(record.row), []).append(record)
    return [replace(row, verified=of_row(cells[row.id], found)) for row in rows]


def _nothing(sweep: str | None, known: set[str]) -> str:
    if not known:
        return f"No results yet. Run: weighin run{f' {sweep}' if sweep else ''}"
    from difflib import get_close_matches

    known = {plain(name) for name in known}
    close = get_close_matches(sweep or "", sorted(known), n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"sweeps here: {', '.join(sorted(known))}"
    return f"No results of sweep {sweep!r} in this store; {hint}"


def build_row(cells: Sequence[Record], evidence: Evidence, users: Mapping[tuple[str, str], int]) -> Row:
    """A row from its cells (one record per seed); `users` counts who shares each stage."""
    last = newest(cells)
    complete = [cell for cell in cells if cell.status == "complete"]
    shown = newest(complete) if complete else last
    assert len({description(cell) for cell in cells}) == 1, "records of one row describe one cell"
    status, reason = _outcome(cells)
    return Row(
        id=plain(last.row),
        teacher=plain(shown.cell.teacher),
        method=plain(shown.cell.method),
        fields=plain_data(shown.cell.fields, lines=False),
        budget=None if shown.cell.budget is None else plain(shown.cell.budget),
        recipe=plain(shown.cell.recipe),
        recipe_digest=plain(shown.cell.recipe_digest),
        sweep=plain(last.sweep),
        status=status,
        reason=reason,
        seeds=tuple(_seed(cell) for cell in cells),
        scores=score(evidence),
        size=shown.size,
        speed=plain_data(shown.speed, lines=False),
        cost=share(cells, users),
        control=shown.cell.control,
    )


def _seed(cell: Record) -> Seed:
    reason = cell.reason or (cell.failure.reason if cell.failure else "")
    return Seed(
        seed=cell.cell.seed,
        status=cell.status,
        reason=plain(" ".join(reason.splitlines())),
        failure=plain_data(cell.failure),
        curve=drawable(cell.curve),
        stages=plain_data(cell.stages),
        provenance=plain_data({k: v for k, v in cell.provenance.items() if k not in REPRODUCED}),
        tuning=plain_data(cell.tuning),
        **student_training(cell),
    )


def _outcome(cells: Sequence[Record]) -> tuple[str, str]:
    """A row is complete when every seed is: the mean over the seeds that survived would flatter it."""
    for status in ("failed", "skipped"):
        bad = [_seed(cell) for cell in cells if cell.status == status]
        if bad:
            reasons = sorted({seed.reason for seed in bad})
            which = "" if len(bad) == len(cells) else f"seed {', '.join(str(seed.seed) for seed in bad)}: "
            return status, which + "; ".join(reasons)
    return "complete", ""


def _tabs(teacher: str, rows: Sequence[Row], controls: Sequence[Row], evidence: Mapping[str, Evidence]) -> list[Tab]:
    references = [row for row in rows if row.budget is None]
    references.sort(key=lambda row: (row.method != REFERENCE, row.method, row.id))
    budgets = sorted({row.budget for row in rows if row.budget is not None}, key=_budget_key)
    tabs = []
    for budget in budgets or [""]:
        members = [row for row in rows if row.budget == budget]
        columns = _columns([*references, *members], evidence)
        groups, comparisons, limits = rank(_groups(members), columns, evidence)
        ordered = [Group(g.recipe, tuple(sorted(g.rows, key=lambda row: _order(row, columns)))) for g in groups]
        every = [*references, *members]
        notes = (*_trained(columns), *average_notes(columns, every), *overall_notes(columns, every))
        notes += (*unequal_tokens(ordered), *_notes([*references, *members]))
        tab = Tab(teacher, budget, columns, tuple(references), tuple(ordered), tuple(comparisons), notes)
        twins = beside(tab.rows, controls, columns, evidence)
        tabs.append(replace(tab, detectable=limits, twins=twins, reported=claims(tab)))
    return tabs


def _budget_key(budget: str) -> tuple[str, float, str]:
    """By unit, then from large to small."""
    unit, _, value = budget.partition("=")
    try:
        return unit, -float(value.removesuffix("M")), budget
    except ValueError:
        return unit, 0.0, budget


def _columns(rows: Iterable[Row], evidence: Mapping[str, Evidence]) -> tuple[Column, ...]:
    found = {column for row in rows for column in evidence[row.id].samples if column.main and column.when == "final"}
    return tuple(sorted(found, key=lambda column: (column.higher_is_better, column.key)))


def _groups(rows: Iterable[Row]) -> list[Group]:
    """One group per recipe kind; `shared` recipes are split by digest, since only equal training is comparable."""
    members: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.budget is not None:
            digest = row.recipe_digest if row.recipe == "shared" else ""
            members.setdefault((row.recipe, digest), []).append(row)
    several = sum(recipe == "shared" for recipe, _ in members) > 1
    order = sorted(members, key=lambda key: (RECIPES.index(key[0]) if key[0] in RECIPES else len(RECIPES), key))
    return [
        Group(f"{recipe} {digest[:8]}" if digest and several else recipe, tuple(members[recipe, digest]))
        for recipe, digest in order
    ]


def _order(row: Row, columns: Sequence[Column]) -> tuple[bool, bool, float, str, str]:
    """Complete rows first, then stale ones, by the first column's mean; rank ranges say who is better."""
    value = float("inf")
    if columns and (found := row.scores.get(columns[0].key)) is not None and isfinite(found.summary.value):
        value = -found.summary.value if columns[0].higher_is_better else found.summary.value
    return row.status != "complete", bool(row.stale), value, row.method, row.id


def _trained(columns: Iterable[Column]) -> Iterator[str]:
    """How each fine-tuned column's models were trained."""
    for column in columns:
        if column.settings:
            yield f"{column.protocol} is fine-tuned: {column.settings}"


def _notes(rows: Iterable[Row]) -> tuple[str, ...]:
    teachers = {seed.stages["teacher"] for row in rows for seed in row.seeds if "teacher" in seed.stages}
    if len(teachers) > 1:
        return (
            f"{len(teachers)} different builds of this teacher stand in this tab; run the sweep again to align them",
        )
    return ()
