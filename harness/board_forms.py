"""The board in its other forms: plots as files, and a page that is served."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.boards import present
from harness.errors import SpecError, nearest
from results.board import board
from results.model import Board
from results.store import Store
from results.stores import open_stores
from results.verification import DIRECTORY


def plot_board(store_url: str | Sequence[str], sweep: str | None, kind: str, output: Path | None) -> Path:
    """Draw one of the board's plots into a file; SpecError where it cannot be drawn or written."""
    from results.figures import figure, kinds

    if kind not in kinds():
        raise SpecError(f"--plot {kind}: unknown{nearest(kind, kinds())}")
    if output is None:
        raise SpecError(f"--plot {kind}: where to? -o FILE.svg, .png or .pdf")
    form = figure_form(output, "--output")
    return write_bytes(figure(_read(store_url, sweep), kind, form), output, "--output")


def draw_curve(row: str, store_url: str, output: Path) -> None:
    """Write a row's training loss as a picture; SpecError where it cannot be drawn or written."""
    from results.figures import row_figure
    from results.show import show

    drawing = row_figure(show(Store(store_url), row).row, figure_form(output, "--curve"))
    if drawing is None:
        raise SpecError(f"--curve: row {row} has no training curve")
    write_bytes(drawing, output, "--curve")


def figure_form(output: Path, option: str) -> str:
    """`svg`, `png` or `pdf`, by the file's name."""
    from results.figures import FORMS

    form = output.suffix.removeprefix(".").lower()
    if form not in FORMS:
        raise SpecError(f"{option} {output}: plots are drawn as {', '.join(f'.{each}' for each in FORMS)}")
    return form


def write_bytes(data: bytes, output: Path, option: str) -> Path:
    """Write a file that `option` named; SpecError when it cannot be written."""
    try:
        output.write_bytes(data)
    except OSError as error:
        raise SpecError(f"{option} {output}: cannot be written: {error.strerror or error}") from error
    return output


def serve_board(store_url: str | Sequence[str], sweep: str | None, port: int, say: Callable[[str], None]) -> None:
    """Serve the page on this machine until interrupted; it is drawn again when a record has come."""
    from results.page import page
    from results.serve import HOST, Pages, server

    def draw() -> str:
        return page(_read(stores, sweep), stores)

    stores = [store_url] if isinstance(store_url, str) else list(store_url)
    served = server(Pages(lambda: fingerprint(stores), draw), port)
    where = f"http://{HOST}:{served.server_address[1]}/"
    say(f"the board of {', '.join(stores)} is at {where} until Ctrl-C; nothing can be changed")
    try:
        served.serve_forever()
    except KeyboardInterrupt:
        say("stopped")
    finally:
        served.server_close()


def fingerprint(stores: Sequence[str]) -> str:
    """Changes when a record or a verification is added: neither is rewritten, so that their names say it all."""
    names = [[url, *Store(url).names(part)] for url in stores for part in ("records", DIRECTORY)]
    return hashlib.sha256(repr(names).encode()).hexdigest()


def _read(store_url: str | Sequence[str], sweep: str | None) -> Board:
    return board(open_stores(store_url), sweep, present())
