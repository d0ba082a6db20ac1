"""What `board` and `show` print: computed from the store alone, without torch."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import SpecError, nearest
from results.errors import StoreError
from results.store import Store

if TYPE_CHECKING:
    from rich.console import RenderableType

    from results.model import Board
    from results.reader import Rejected

FORMATS = ("table", "md", "csv", "json", "html")
PLAIN_WIDTH = 160
"""Columns of a table that is not drawn on a terminal."""


def render(store_url: str | Sequence[str], sweep: str | None, form: str, *, warn: bool = True) -> str:
    """The board in one of `FORMATS`, with a newline at its end; files that are no records are named beside it."""
    if form not in FORMATS:
        raise SpecError(f"--format {form}: unknown{nearest(form, FORMATS)}")
    from results.board import board
    from results.headers import uncollected
    from results.stores import open_stores

    with uncollected():
        found = board(open_stores(store_url), sweep, curves=form == "html")
        if warn:
            tell_rejected(found.rejected)
        if found.rejected and not found.tabs and sweep is None:
            raise StoreError(f"none of {len(found.rejected)} record files can be read")
        return in_form(found, form)


def tell_rejected(rejected: Sequence[Rejected]) -> None:
    """A line on standard error for each file that is not shown; the board is complete without them."""
    for each in rejected:
        print(f"warning: {each}", file=sys.stderr)


def in_form(found: Board, form: str) -> str:
    """A board in one of `FORMATS`."""
    from results import json_view, table

    if form == "table":
        return drawn(table.terminal(found))
    if form == "html":
        from results.page import page

        return page(found)
    text = {"md": table.markdown, "csv": table.as_csv, "json": json_view.dumps}[form](found)
    return text if text.endswith("\n") else text + "\n"


def rebuild_view(store_url: str) -> str:
    """Make the view anew; what it holds, in a line. Files that are no records are named on standard error."""
    from results.view import NAME, rebuild

    store = Store(store_url)
    found = rebuild(store)
    tell_rejected(found.rejected)
    if not found.records:
        return f"store {store_url} has no records"
    return f"wrote {NAME}: {len(found.records)} cells of {len({record.row for record in found.records})} rows"


def show_row(row: str, store_url: str, *, as_json: bool) -> None:
    """Print a row, or one of its seeds."""
    from results.show import as_json as to_json
    from results.show import as_terminal, show

    found = show(Store(store_url), row)
    print(to_json(found) if as_json else drawn(as_terminal(found)))


def draw_curve(row: str, store_url: str, output: Path) -> None:
    """Write a row's training loss as an SVG file; SpecError where it cannot be drawn or written."""
    from results.curve_svg import curve_svg
    from results.show import show

    if output.suffix != ".svg":
        raise SpecError(f"--curve {output}: curves are drawn as .svg")
    drawing = curve_svg(show(Store(store_url), row).row)
    if drawing is None:
        raise SpecError(f"--curve: row {row} has no training curve")
    deliver(drawing, output, "--curve")


def deliver(text: str, output: Path | None, option: str = "--output") -> None:
    """Print a text, or write it to `output`, which `option` gave; SpecError when it cannot be written."""
    if output is None:
        sys.stdout.write(text)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SpecError(f"{option} {output}: cannot be written: {error.strerror or error}") from error


def drawn(renderable: RenderableType) -> str:
    """Text of a rich renderable: coloured and as wide as the terminal, plain and wide elsewhere."""
    from rich.console import Console

    terminal = sys.stdout.isatty()
    buffer = io.StringIO()
    width = Console().width if terminal else PLAIN_WIDTH
    console = Console(file=buffer, force_terminal=terminal, width=width, highlight=False)
    console.print(renderable)
    return buffer.getvalue()
