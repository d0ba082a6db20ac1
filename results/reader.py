"""What the board needs of a store: its records, and the bytes of the files they point to."""

from __future__ import annotations

from typing import Protocol

from results.record import Record


class Reader(Protocol):
    """The read side of a store."""

    def records(self) -> list[Record]:
        """Every record, in any order."""
        ...

    def read_bytes(self, name: str, /) -> bytes:
        """Contents of the store's file `name`; raises FileNotFoundError."""
        ...
