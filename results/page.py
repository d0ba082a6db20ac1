"""The board as one self-contained HTML page: no server, no network, no external file.

What a record says reaches the page as JSON inside data blocks, and from there as text nodes: it is never markup. The
policy in the page's head lets nothing be fetched, and no script run but the page's own, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from results.json_view import finite
from results.model import Board
from results.page_data import board_data
from results.page_details import all_details

SCRIPTS = ("page_state.js", "page_table.js", "page_details.js", "page_plots.js", "page.js")
"""The page's own code, one script when embedded, in this order."""
TABLE_LIBRARY = "vendor/table-core-8.21.3.js"
TABLE_LICENCE = "vendor/table-core-LICENSE"


def page(board: Board, stores: Sequence[str] = ()) -> str:
    """The whole page; `stores` are the places named in the commands that it shows."""
    from plotly.offline import get_plotlyjs

    library = _asset(TABLE_LIBRARY).partition("//# sourceMappingURL")[0]
    script = "\n".join(_asset(name) for name in SCRIPTS)
    plotly = get_plotlyjs() if board.tabs else ""
    blocks = [_block(f"details-{place}", all_details(tab, stores)) for place, tab in enumerate(board.tabs)]
    return Template(_asset("page.html")).substitute(
        title=escape(f"weighin: {board.sweep}" if board.sweep else "weighin"),
        policy=_policy(library, script, plotly),
        style=_asset("page.css"),
        message=escape(board.message or "This page needs JavaScript. weighin board prints the same table."),
        licence=_asset(TABLE_LICENCE).replace("--", "- -"),
        data=_block("board", board_data(board)),
        details="\n".join(blocks),
        library=library,
        plotly=plotly,
        script=script,
    )


def _policy(*scripts: str) -> str:
    """Content-Security-Policy: these scripts run and no other; nothing is fetched, framed or sent."""
    hashes = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    fixed = "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    return f"{fixed}; script-src {allowed}"


def _block(name: str, data: Any) -> str:
    return f'<script type="application/json" id="{name}">{script_json(data)}</script>'


def _asset(name: str) -> str:
    return files("results").joinpath(name).read_text(encoding="utf-8")


def script_json(data: Any) -> str:
    """JSON that cannot end the script element it stands in, nor open a comment there; a number it lacks is null."""
    try:
        text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    except ValueError:
        text = json.dumps(finite(data), allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    text = text.encode("utf-8", "replace").decode()
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text
