"""Where the texts of a protocol come from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tasks.hub import HubSplit
from tasks.interface import DataError, Fact


class TextSource(Protocol):
    """An ordered list of documents with an identity; the protocols of `tasks/` are written against this alone."""

    def documents(self, mirror: Path | None) -> list[str]:
        """The texts in their fixed order; `DataError` when they cannot be had."""

    def fingerprint(self, mirror: Path | None) -> str:
        """As `tasks.interface.Task.fingerprint`."""

    def check(self, mirror: Path | None) -> None:
        """Raise `DataError` when the texts cannot be had, without reading them all."""

    def describe(self) -> Mapping[str, Fact]:
        """What text it is, as flat facts: `data`, and `config`, `split`, `revision` where it has them."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of a split as they are."""

    split: HubSplit
    column: str = "text"
    sha256: str | None = None
    """Of the rows, a newline after each: a mirror that holds another revision's text is refused."""

    def documents(self, mirror: Path | None) -> list[str]:
        """The rows; `DataError` when they are not those of the revision."""
        rows: list[str] = self.split.column(self.column, mirror)
        if self.sha256 and (found := text_digest(rows)) != self.sha256:
            raise DataError(
                f"{self.split}: not the text of revision {self.split.revision}: "
                f"its sha256 begins with {found[:12]}, expected {self.sha256[:12]}"
            )
        return rows

    def fingerprint(self, mirror: Path | None) -> str:
        return self.split.fingerprint(mirror)

    def check(self, mirror: Path | None) -> None:
        self.split.check(mirror)

    def describe(self) -> Mapping[str, Fact]:
        return self.split.describe()


def text_digest(rows: Iterable[str]) -> str:
    """SHA-256 of texts, a newline after each."""
    total = hashlib.sha256()
    for row in rows:
        total.update(row.encode() + b"\n")
    return total.hexdigest()
