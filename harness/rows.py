"""Rows by the names that the command line takes: `ROW`, or `ROW#seed`."""

from __future__ import annotations

from harness.errors import SpecError, nearest
from results.load import choose
from results.record import Record
from results.store import Store


def records_of(target: str, store: Store) -> list[Record]:
    """The records of `ROW`, one per seed, or that of `ROW#seed`; SpecError with the nearest id when there is none."""
    row, _, seed = target.partition("#")
    known = choose(store.records())
    found = [record for record in known if record.row == row and seed in ("", str(record.cell.seed))]
    if not found:
        if not known:
            raise SpecError(f"{target}: store {store.url} has no results yet")
        names = {record.id if seed and record.row == row else record.row for record in known}
        hint = nearest(target, names) if len(names) < 20 else "; `weighin board` lists them"
        raise SpecError(f"{target}: no such row in store {store.url}{hint}")
    return found
