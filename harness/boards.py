"""What `board` and `show` print: computed from the store alone, without torch."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import SpecError, nearest
from results.errors import StoreError
from results.store import Store

if TYPE_CHECKING:
    from rich.console import RenderableType

    from results.model import Board
    from results.reader import Reader, Rejected
    from results.stale import Present

FORMATS = ("table", "md", "csv", "json", "html", "latex", "badge")
PLAIN_WIDTH = 180
"""Columns of a table that is not drawn on a terminal."""


def render(
    store_url: str | Sequence[str], sweep: str | None, form: str, since: str | None = None, *, warn: bool = True
) -> str:
    """The board in one of `FORMATS`, with a newline at its end; files that are no records are named beside it.

    With what changed `since` a kept board or a date.
    """
    if form not in FORMATS:
        raise SpecError(f"--format {form}: unknown{nearest(form, FORMATS)}")
    from results.board import board
    from results.headers import uncollected
    from results.stores import open_stores

    with uncollected():
        reader = open_stores(store_url)
        found = board(reader, sweep, present(), curves=form == "html")
        if warn:
            tell_rejected(found.rejected)
        if found.rejected and not found.tabs and sweep is None:
            raise StoreError(f"none of {len(found.rejected)} record files can be read")
        if since is not None:
            found = with_changes(found, reader, since)
        return in_form(found, form, [store_url] if isinstance(store_url, str) else store_url)


def tell_rejected(rejected: Sequence[Rejected]) -> None:
    """A line on standard error for each file that is not shown; the board is complete without them."""
    for each in rejected:
        print(f"warning: {each}", file=sys.stderr)


def in_form(found: Board, form: str, stores: Sequence[str] = ()) -> str:
    """A board in one of `FORMATS`; `stores` are named in the page's commands."""
    from results import badge, json_view, latex, table

    if form == "table":
        return drawn(table.terminal(found))
    if form == "html":
        from results.page import page

        return page(found, stores)
    forms = {
        "md": table.markdown,
        "csv": table.as_csv,
        "json": json_view.dumps,
        "latex": latex.latex,
        "badge": badge.badge,
    }
    text = forms[form](found)
    return text if text.endswith("\n") else text + "\n"


def present() -> Present:
    """What this checkout offers: protocols, and the sweeps that come with it; by names alone, nothing is imported."""
    from results.stale import Present
    from tasks import registry

    home = Path(__file__).resolve().parent.parent / "sweeps"
    return Present(
        protocols=frozenset(registry.names()), sweeps={file.stem: f"sweeps/{file.name}" for file in home.glob("*.yaml")}
    )


def with_changes(found: Board, reader: Reader, since: str) -> Board:
    """The board and what changed on it, since a file of `--format json` or since a date (UTC)."""
    from results.board import board
    from results.changes import Before, changes, read_board
    from results.json_view import dumps

    if is_date(since):
        old = read_board(dumps(board(Before(reader, since), found.sweep, present())), since)
    else:
        try:
            old = read_board(Path(since).read_text(encoding="utf-8"), since)
        except (OSError, UnicodeDecodeError) as error:
            told = getattr(error, "strerror", None) or error
            raise SpecError(
                f"--since {since}: neither a date (2026-01-31) nor a board that can be read: {told}"
            ) from error
    return replace(found, changes=changes(old, read_board(dumps(found), since), since))


def is_date(text: str) -> bool:
    """`2026-01-31`, or with the time of day, `2026-01-31T12:00:00Z`."""
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return re.fullmatch(r"\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\dZ?)?)?", text) is not None


def list_reported(method: str | None, *, as_json: bool) -> None:
    """Print what papers reported; SpecError for a method that none reports."""
    from results.claims import reported_json
    from results.json_view import render as render_json
    from results.reported import collection
    from results.reported_view import rich_list

    numbers = collection().numbers
    known = {each.model.method for each in numbers}
    if method is not None and method not in known:
        raise SpecError(f"--method {method}: nothing was reported of it{nearest(method, known)}")
    chosen = [each for each in numbers if method in (None, each.model.method)]
    print(render_json([reported_json(each) for each in chosen]) if as_json else drawn(rich_list(chosen)), end="")


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

    found = show(Store(store_url), row, present())
    print(to_json(found) if as_json else drawn(as_terminal(found)))


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
