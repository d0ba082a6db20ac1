"""The board as text: a table for the terminal, Markdown, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from results.changes import sentences
from results.formatting import cell, count, duration, gain_cell, legend, resolution, seeds, status, titles
from results.model import Board, Column, Row, Tab, Twin
from results.overall import PARTS
from results.plain_text import csv_safe
from results.reported_view import HEAD, beside_rows, line, on_tab, rich_claims
from results.reported_view import LEGEND as REPORTED_LEGEND
from results.speed_view import SPEED_HEAD, latency, speed_cells

if TYPE_CHECKING:
    from rich.console import RenderableType

SCORE_PARTS = ("value", "low", "high", "basis", "rank_best", "rank_worst", "pareto", "before")
GAIN_PARTS = ("gain", "gain_low", "gain_high", "gain_p_holm")
STATE = ("seeds_complete", "stale", "refresh")
NUMBERS = ("cost", "seeds")
"""What stands beside the gains over a control: its own."""


def terminal(board: Board) -> RenderableType:
    """A rich renderable: one table per tab, a section per recipe kind."""
    from rich.console import Group
    from rich.text import Text

    if board.message:
        return Text(board.message)
    told = (
        [Text("\n".join([f"changed since {board.changes.since}:", *sentences(board.changes)]))] if board.changes else []
    )
    tables = [table for tab in board.tabs for table in _rich_tab(tab)]
    return Group(*told, *tables, Text(legend(board), style="dim"))


def _rich_tab(tab: Tab) -> Iterator[RenderableType]:
    yield _rich_table(tab)
    if tab.twins:
        yield _rich_gains(tab)
    if found := rich_claims(tab, f"{heading(tab)}: reported elsewhere"):
        yield found


def _rich_table(tab: Tab) -> RenderableType:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    # Texts, not strings: what a record says is never read as console markup.
    table = Table(title=Text(heading(tab)), title_justify="left", box=SIMPLE_HEAD, caption_justify="left")
    names, columns = titles(tab.columns), [each for each in tab.columns if not _is_part(each)]
    table.add_column("method", overflow="fold", min_width=14)
    for column in columns:
        table.add_column(Text(f"{names[column.key]} {column.arrow}"), justify="right", overflow="fold")
    for name in ("params", "MACs", "latency", "cost", "seeds"):
        table.add_column(name, justify="right")
    table.add_column("row", no_wrap=True, min_width=8)
    for recipe, rows in tab.sections:
        table.add_row(Text(recipe, style="bold"))
        for row in rows:
            table.add_row(*(Text(text) for text in _line(row, columns)), style=_style(row))
        table.add_section()
    told = [f"{row.label}: {status(row)}" for row in tab.rows if row.reason or row.stale]
    table.caption = Text("\n".join([*told, *tab.notes, *resolution(tab)]))
    return table


def _is_part(column: Column) -> bool:
    """A part of an overall score: a terminal is too narrow for it, the other forms have it."""
    return column.protocol.startswith("overall.") and column.metric in PARTS


def _rich_gains(tab: Tab) -> RenderableType:
    """A row of the board per control: what its row gains over it."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(f"{heading(tab)}: gains"), title_justify="left", box=SIMPLE_HEAD, caption_justify="left")
    for place, name in enumerate(_gains_head(tab)):
        measured = 2 <= place < 2 + len(tab.columns)
        table.add_column(Text(name), justify="right" if measured or name in NUMBERS else "left", overflow="fold")
    for recipe, twins in _gains_sections(tab):
        table.add_row(Text(recipe, style="bold"))
        for row, twin in twins:
            table.add_row(
                *(Text(text) for text in _gains_line(row, twin, tab.columns)), style=_style(twin.row) or _style(row)
            )
        table.add_section()
    reasons = [f"{t.row.label}, {t.control.kind}: {status(t.row)}" for t in tab.twins if t.row.reason]
    table.caption = Text("\n".join(reasons))
    return table


def _gains_head(tab: Tab) -> list[str]:
    names = titles(tab.columns)
    return ["method", "gain from", *(f"{names[column.key]} gain" for column in tab.columns), *NUMBERS, "control"]


def _gains_sections(tab: Tab) -> list[tuple[str, list[tuple[Row, Twin]]]]:
    """The rows that have controls, each with one, under the headings of the board."""
    found = [(recipe, [(row, twin) for row in rows for twin in tab.twins_of(row)]) for recipe, rows in tab.sections]
    return [(recipe, twins) for recipe, twins in found if twins]


def _gains_line(row: Row, twin: Twin, columns: Sequence[Column]) -> list[str]:
    numbers = [duration(twin.row.cost.worker_s), seeds(twin.row)]
    return [row.label, twin.gain_from, *(gain_cell(twin, column) for column in columns), *numbers, twin.row.id]


def _style(row: Row) -> str:
    return {"failed": "red", "skipped": "dim"}.get(row.status, "dim" if row.stale else "")


def heading(tab: Tab) -> str:
    """`gpt2 at params=0.66`."""
    return f"{tab.teacher} at {tab.budget}" if tab.budget else tab.teacher


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
        latency(row.speed) if row.speed else "–",
        duration(row.cost.worker_s),
        seeds(row),
        " ".join(filter(None, [row.id, row.verified.mark if row.verified else "", row.store])),
    ]


def markdown(board: Board) -> str:
    """GitHub-flavoured Markdown: one table per tab and recipe kind."""
    if board.message:
        return escape_markdown(board.message) + "\n"
    parts = ["# Leaderboard", *_markdown_changes(board)]
    parts += [*(part for tab in board.tabs for part in _markdown_tab(tab)), legend(board)]
    return "\n\n".join(parts) + "\n"


def _markdown_changes(board: Board) -> list[str]:
    if board.changes is None:
        return []
    told = "\n".join(f"- {escape_markdown(line)}" for line in sentences(board.changes))
    return [f"## Changed since {escape_markdown(board.changes.since)}", told]


def _markdown_tab(tab: Tab) -> list[str]:
    names = titles(tab.columns)
    metrics = [f"{names[column.key]} {column.arrow}" for column in tab.columns]
    head = ["method", *metrics, "params", "MACs", "latency", "cost", "seeds", "row", "status"]
    align = ["---", *["---:"] * (len(metrics) + 5), "---", "---"]
    parts = [
        f"## {escape_markdown(heading(tab))}",
        *(f"Note: {escape_markdown(note)}." for note in [*tab.notes, *resolution(tab)]),
    ]
    for recipe, rows in tab.sections:
        lines = [head, align, *([*_line(row, tab.columns), status(row)] for row in rows)]
        parts.append(f"### {escape_markdown(recipe)}")
        parts.append(markdown_table(lines))
    return parts + (_markdown_gains(tab) if tab.twins else []) + (_markdown_claims(tab) if tab.reported else [])


def _markdown_claims(tab: Tab) -> list[str]:
    near, rest = on_tab(tab)
    lines = [HEAD, ["---"] * len(HEAD), *map(line, near)]
    return ["### reported elsewhere", *([markdown_table(lines)] if near else []), rest + REPORTED_LEGEND]


def _markdown_gains(tab: Tab) -> list[str]:
    head = [*_gains_head(tab), "status"]
    align = ["---", "---", *["---:"] * (len(head) - 4), "---", "---"]
    parts = ["### gains"]
    for recipe, twins in _gains_sections(tab):
        lines = [head, align, *([*_gains_line(row, twin, tab.columns), status(twin.row)] for row, twin in twins)]
        parts += [escape_markdown(recipe), markdown_table(lines)]
    return parts


def markdown_table(lines: Iterable[Sequence[str]]) -> str:
    """Lines of a table, the first two its head and its alignment, every cell escaped."""
    return "\n".join("| " + " | ".join(map(escape_markdown, line)) + " |" for line in lines)


def escape_markdown(text: str) -> str:
    """One line of Markdown that shows `text` as it is: no cell breaks, no markup, no HTML."""
    flat = " ".join(text.split())
    for mark in ("\\", "|", "`", "*", "_", "[", "]"):
        flat = flat.replace(mark, f"\\{mark}")
    return flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def as_csv(board: Board) -> str:
    """CSV, one line per row and tab, numbers in full; a text that a spreadsheet would run starts with a quote.

    Where there are controls, they are lines of the group `controls`, and further columns have what their rows gain.
    Where something was reported of a row's method by a column's protocol, a further column has it.
    """
    columns = list({column.key: column for tab in board.tabs for column in tab.columns}.values())
    names = titles(columns)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    fixed = ["teacher", "budget", "group", "row", "store", "method", "fields", "status", "reason", "seeds", *STATE]
    numbers = [
        "params",
        "params_fraction",
        "macs_per_token",
        "stored_bytes",
        "training_tokens",
        "worker_s",
        *SPEED_HEAD,
    ]
    metrics = [f"{names[c.key]} {part}" for c in columns for part in SCORE_PARTS]
    gains = ["control", "control_of", *(f"{names[c.key]} {part}" for c in columns for part in GAIN_PARTS)]
    claims = [f"{names[c.key]} reported" for c in columns] if any(beside_rows(tab) for tab in board.tabs) else []
    any_twins = any(tab.twins for tab in board.tabs)
    writer.writerow(map(csv_safe, [*fixed, *numbers, *metrics, *claims, *(gains if any_twins else [])]))
    for tab in board.tabs:
        told = beside_rows(tab)
        lines = [
            [*_flat(tab, recipe, row, columns), *(told.get((row.id, column.key)) for column in columns if claims)]
            for recipe, rows in tab.sections
            for row in rows
        ]
        if any_twins:
            lines = [[*line, *[None] * len(gains)] for line in lines]
        lines += [
            [*_flat(tab, "controls", t.row, columns), *[None] * len(claims), *_flat_gains(t, columns)]
            for t in tab.twins
        ]
        writer.writerows(map(_plain, cells) for cells in lines)
    return stream.getvalue()


def _flat(tab: Tab, recipe: str, row: Row, columns: Sequence[Column]) -> list[object]:
    size = row.size
    score_cells: list[object] = []
    for column in columns:
        found = row.scores.get(column.key) if column in tab.columns else None
        if found is None:
            score_cells += [None] * len(SCORE_PARTS)
            continue
        s, rank, before = found.summary, found.rank or (None, None), found.before
        score_cells += [s.value, s.low, s.high, s.basis, *rank, found.pareto, before.value if before else None]
    sizes = [size.params, size.params_fraction, size.macs_per_token, size.stored_bytes] if size else [None] * 4
    fields = "; ".join(f"{name}={value}" for name, value in sorted(row.fields.items()))
    place = [tab.teacher, tab.budget, recipe, row.id, row.store, row.method, fields, row.status, row.reason]
    state = [len(row.seeds), row.num_complete, row.stale, row.refresh]
    tokens = max(seed.tokens for seed in row.seeds)
    return [*place, *state, *sizes, tokens, row.cost.worker_s, *speed_cells(row.speed), *score_cells]


def _flat_gains(twin: Twin, columns: Sequence[Column]) -> list[object]:
    cells: list[object] = [twin.control.kind, twin.control.of]
    for column in columns:
        gain = twin.gains.get(column.key)
        cells += [gain.value, gain.low, gain.high, gain.p_holm] if gain else [None] * len(GAIN_PARTS)
    return cells


def _plain(item: object) -> str:
    if isinstance(item, str):
        return csv_safe(item)
    return "" if item is None else repr(item) if isinstance(item, float) else str(item)
