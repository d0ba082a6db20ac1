"""Text of a record as a reader may be shown it: no control sequences, nothing that hides or turns round other text.

A record is data from anywhere. A terminal obeys escape sequences, a reader is misled by marks that turn the direction
of writing (CVE-2021-42574), a spreadsheet runs a cell that starts like a formula (OWASP, *CSV Injection*). Such
characters are shown, never dropped: names that differ stay different.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel

UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164"
    "\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Controls, separators of lines, marks of direction, characters without a shape, halves of surrogate pairs."""
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""A spreadsheet takes a text that starts with one of these for a formula."""
NUMBERS = (int, float, bool, type(None))


def plain(text: str, *, lines: bool = False) -> str:
    """The text with every unseen character made visible: `␛` for escape, `\\u202e` for a mark of direction.

    With `lines`, line feeds and tabs stay. A text without such characters is returned as it is.
    """
    if text.isascii() and text.isprintable():
        return text
    return UNSEEN.sub(_kept if lines else _shown, text)


def plain_data(data: Any, *, lines: bool = True) -> Any:
    """Parsed JSON, or a part of a record, with `plain` texts and keys."""
    kind = type(data)
    if kind is str:
        return data if data.isascii() and data.isprintable() else plain(data, lines=lines)
    if kind in NUMBERS:
        return data
    if isinstance(data, dict):
        return {plain(str(key)): plain_data(value, lines=lines) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [plain_data(item, lines=lines) for item in data]
    if isinstance(data, BaseModel):
        # A copy is not validated: shown text may be longer than a record's may be.
        return data.model_copy(update={name: plain_data(value, lines=lines) for name, value in data})
    return data


def one_line(text: object) -> str:
    """A text of a record as one line without control characters, so that it cannot leave its comment or its cell."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def csv_safe(text: str) -> str:
    """A plain text for a cell of a CSV file, with a quote before it where a spreadsheet would run it."""
    runs = text.startswith(FORMULA) or text.lstrip().startswith(FORMULA)
    return f"'{plain(text, lines=True)}" if runs else plain(text, lines=True)


def _shown(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _kept(found: re.Match[str]) -> str:
    return found[0] if found[0] in "\n\t" else _shown(found)
