"""Where the texts of a protocol come from."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class TextSource(Protocol):
    """An ordered list of documents with an identity; the protocols of `tasks/` are written against this alone."""

    def documents(self, mirror: Path | None) -> list[str]:
        """The texts in their fixed order; `DataError` when they cannot be had."""

    def fingerprint(self, mirror: Path | None) -> str:
        """As `tasks.interface.Task.fingerprint`."""

    def check(self, mirror: Path | None) -> None:
        """Raise `DataError` when the texts cannot be had, without reading them all."""
