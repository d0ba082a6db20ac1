"""What the board needs of a store: its records, and the bytes of the files they point to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from results.record import Record


@dataclass(frozen=True)
class Rejected:
    """A file of `records/` that is not shown, and why; plain text."""

    file: str
    """`store DIR: records/NAME`."""
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


@dataclass(frozen=True)
class Current:
    """What a board stands on: one record per (row, seed)."""

    records: Sequence[Record]
    """As `results.load.choose` has them, sorted by row and seed."""
    rejected: Sequence[Rejected] = ()
    sweeps: frozenset[str] = frozenset()
    """Of all readable records, whatever sweep was asked for."""
    notes: Sequence[str] = ()
    """What a reader has to know, such as stores that disagree."""


class Reader(Protocol):
    """The read side of a store. One that also has `current(sweep, curves=...)` is asked for just that."""

    def records(self) -> list[Record]:
        """Every readable record, in any order."""
        ...

    def read_bytes(self, name: str, /) -> bytes:
        """Contents of the store's file `name`; raises FileNotFoundError."""
        ...


def home(reader: Reader, record: Record) -> Reader:
    """Where the files lie that a record points to: a reader of several stores has a `home` of each record."""
    ask = getattr(reader, "home", None)
    found: Reader = ask(record) if ask is not None else reader
    return found
