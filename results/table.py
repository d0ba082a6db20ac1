"""The board as text: a table for the terminal, Markdown, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from results.formatting import LEGEND, cell, count, duration, status, titles
from results.model import Board, Column, Row, Tab

if TYPE_CHECKING:
    from rich.console import RenderableType

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet takes a text that starts with one of these for a formula."""


def terminal(board: Board) -> RenderableType:
    """A rich renderable: one table per tab, a section per recipe kind."""
    from rich.console import Group
    from rich.text import Text

    if board.message:
        return Text(board.message)
    return Group(*(_rich_table(tab) for tab in board.tabs), Text(LEGEND, style="dim"))


def _rich_table(tab: Tab) -> RenderableType:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    # Texts, not strings: what a record says is never read as console markup.
    table = Table(title=Text(heading(tab)), title_justify="left", box=SIMPLE_HEAD, caption_justify="left")
    names = titles(tab.columns)
    table.add_column("method", overflow="fold")
    for column in tab.columns:
        table.add_column(Text(f"{names[column.key]} {column.arrow}"), justify="right", overflow="fold")
    for name in ("params", "MACs", "cost", "seeds"):
        table.add_column(name, justify="right")
    table.add_column("row", no_wrap=True)
    for recipe, rows in _sections(tab):
        table.add_row(Text(recipe, style="bold"))
        for row in rows:
            table.add_row(*(Text(text) for text in _line(row, tab.columns)), style=_style(row))
        table.add_section()
    table.caption = Text("\n".join([*(f"{r.label}: {status(r)}" for r in tab.rows if r.reason), *tab.notes]))
    return table


def _style(row: Row) -> str:
    return {"failed": "red", "skipped": "dim"}.get(row.status, "")


def heading(tab: Tab) -> str:
    """`gpt2 at params=0.66`."""
    return f"{tab.teacher} at {tab.budget}" if tab.budget else tab.teacher


def _sections(tab: Tab) -> list[tuple[str, Sequence[Row]]]:
    references = [("reference", tab.references)] if tab.references else []
    return references + [(f"recipe: {group.recipe}", group.rows) for group in tab.groups]


def _line(row: Row, columns: Sequence[Column]) -> list[str]:
    if row.status == "complete" or row.scores:
        scores = [cell(row, column) for column in columns]
    else:
        scores = [row.status] * len(columns)
    size = ["–", "–"]
    if row.size:
        size = [f"{count(row.size.params)} ({row.size.params_fraction:.3f})", count(row.size.macs_per_token)]
    return [
        row.label,
        *scores,
        *size,
        duration(row.cost.worker_s),
        str(len(row.seeds)),
        row.id,
    ]


def markdown(board: Board) -> str:
    """GitHub-flavoured Markdown: one table per tab and recipe kind."""
    if board.message:
        return escape_markdown(board.message) + "\n"
    parts = ["# Leaderboard", *(part for tab in board.tabs for part in _markdown_tab(tab)), LEGEND]
    return "\n\n".join(parts) + "\n"


def _markdown_tab(tab: Tab) -> list[str]:
    names = titles(tab.columns)
    metrics = [f"{names[column.key]} {column.arrow}" for column in tab.columns]
    head = ["method", *metrics, "params", "MACs", "cost", "seeds", "row", "status"]
    align = ["---", *["---:"] * (len(metrics) + 4), "---", "---"]
    parts = [f"## {escape_markdown(heading(tab))}", *(f"Note: {escape_markdown(note)}." for note in tab.notes)]
    for recipe, rows in _sections(tab):
        lines = [head, align, *([*_line(row, tab.columns), status(row)] for row in rows)]
        parts.append(f"### {escape_markdown(recipe)}")
        parts.append("\n".join("| " + " | ".join(map(escape_markdown, line)) + " |" for line in lines))
    return parts


def escape_markdown(text: str) -> str:
    """One line of Markdown that shows `text` as it is: no cell breaks, no markup, no HTML."""
    flat = " ".join(text.split())
    for mark in ("\\", "|", "`", "*", "_", "[", "]"):
        flat = flat.replace(mark, f"\\{mark}")
    return flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def as_csv(board: Board) -> str:
    """CSV, one line per row and tab, numbers in full; a text that a spreadsheet would run starts with a quote."""
    columns = list({column.key: column for tab in board.tabs for column in tab.columns}.values())
    names = titles(columns)
    parts = ("value", "low", "high", "basis", "rank_best", "rank_worst", "pareto", "before")
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    fixed = ["teacher", "budget", "group", "row", "method", "fields", "status", "reason", "seeds"]
    numbers = ["params", "params_fraction", "macs_per_token", "stored_bytes", "worker_s"]
    metrics = [f"{names[c.key]} {part}" for c in columns for part in parts]
    writer.writerow(map(escape_formula, [*fixed, *numbers, *metrics]))
    for tab in board.tabs:
        for recipe, rows in _sections(tab):
            writer.writerows([_plain(item) for item in _flat(tab, recipe, row, columns)] for row in rows)
    return stream.getvalue()


def _flat(tab: Tab, recipe: str, row: Row, columns: Sequence[Column]) -> list[object]:
    size = row.size
    score_cells: list[object] = []
    for column in columns:
        found = row.scores.get(column.key) if column in tab.columns else None
        if found is None:
            score_cells += [None] * 8
            continue
        s, rank, before = found.summary, found.rank or (None, None), found.before
        score_cells += [s.value, s.low, s.high, s.basis, *rank, found.pareto, before.value if before else None]
    sizes = [size.params, size.params_fraction, size.macs_per_token, size.stored_bytes] if size else [None] * 4
    fields = "; ".join(f"{name}={value}" for name, value in sorted(row.fields.items()))
    place = [tab.teacher, tab.budget, recipe, row.id, row.method, fields, row.status, row.reason, len(row.seeds)]
    return [*place, *sizes, row.cost.worker_s, *score_cells]


def _plain(item: object) -> str:
    if isinstance(item, str):
        return escape_formula(item)
    return "" if item is None else repr(item) if isinstance(item, float) else str(item)


def escape_formula(text: str) -> str:
    """The text, with a quote before it when a spreadsheet would take it for a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text
