"""What `board` and `show` print: computed from the store alone, without torch."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import SpecError, nearest
from results.store import Store

if TYPE_CHECKING:
    from rich.console import RenderableType

FORMATS = ("table", "md", "csv", "json", "html", "latex", "badge")
PLAIN_WIDTH = 160
"""Columns of a table that is not drawn on a terminal."""


def render(store_url: str, sweep: str | None, form: str) -> str:
    """The board in one of `FORMATS`, with a newline at its end."""
    if form not in FORMATS:
        raise SpecError(f"--format {form}: unknown{nearest(form, FORMATS)}")
    from results import badge, json_view, latex, table
    from results.board import board

    found = board(Store(store_url), sweep)
    if form == "table":
        return drawn(table.terminal(found))
    if form == "html":
        from results.page import page

        return page(found, [store_url])
    forms = {
        "md": table.markdown,
        "csv": table.as_csv,
        "json": json_view.dumps,
        "latex": latex.latex,
        "badge": badge.badge,
    }
    text = forms[form](found)
    return text if text.endswith("\n") else text + "\n"


def show_row(row: str, store_url: str, *, as_json: bool) -> None:
    """Print a row, or one of its seeds."""
    from results.show import as_json as to_json
    from results.show import as_terminal, show

    found = show(Store(store_url), row)
    print(to_json(found) if as_json else drawn(as_terminal(found)))


def draw_curve(row: str, store_url: str, output: Path) -> None:
    """Write a row's training loss as a picture; SpecError where it cannot be drawn or written."""
    from harness.board_forms import figure_form, write_bytes
    from results.figures import row_figure
    from results.show import show

    drawing = row_figure(show(Store(store_url), row).row, figure_form(output, "--curve"))
    if drawing is None:
        raise SpecError(f"--curve: row {row} has no training curve")
    write_bytes(drawing, output, "--curve")


def deliver(text: str, output: Path | None) -> None:
    """Print a text, or write it to `output`; SpecError when it cannot be written."""
    if output is None:
        sys.stdout.write(text)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SpecError(f"--output {output}: cannot be written: {error.strerror or error}") from error


def drawn(renderable: RenderableType) -> str:
    """Text of a rich renderable: coloured and as wide as the terminal, plain and wide elsewhere."""
    from rich.console import Console

    terminal = sys.stdout.isatty()
    buffer = io.StringIO()
    width = Console().width if terminal else PLAIN_WIDTH
    console = Console(file=buffer, force_terminal=terminal, width=width, highlight=False)
    console.print(renderable)
    return buffer.getvalue()
