"""Several stores as one: the records of some teams on one board, each row with the store that it came from.

Of a cell that several stores have, one record counts, by the rule within a store: the newest complete one, else the
newest other. A copy of a record is the record. Where two stores measured one stage and differ by more than
`AGREEMENT`, which is what equal code on another machine may give, the board says so. Items are read from the store
that the record came from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import combinations
from math import isclose, isnan

from results.load import choose
from results.plain_text import plain
from results.reader import Current, Reader
from results.record import Record
from results.store import Store

AGREEMENT = 1e-5
"""Relative difference of one stage's metrics at unequal execution (threads, workers, micro-batch)."""
STORE = "store"
"""Where a record's provenance says which store it came from, on a board of several."""


def open_stores(urls: str | Sequence[str]) -> Store | Stores:
    """The store, or several as one; a store that is named twice counts once."""
    several = [urls] if isinstance(urls, str) else list(dict.fromkeys(urls))
    return Store(several[0]) if len(several) == 1 else Stores([Store(url) for url in several])


class Stores:
    """The read side of several stores."""

    def __init__(self, stores: Sequence[Store]) -> None:
        names = [_last_part(store.url) for store in stores]
        if len(set(names)) < len(names):
            names = [_shown(store.url) for store in stores]
        self.stores = dict(zip(names, stores, strict=True))

    def records(self) -> list[Record]:
        """Every readable record of every store, each with its store in its provenance."""
        return [_from(name, record) for name, store in self.stores.items() for record in store.records()]

    def names(self, directory: str) -> list[str]:
        """Names directly under `directory` of any of the stores, sorted."""
        return sorted({name for store in self.stores.values() for name in store.names(directory)})

    def read_bytes(self, name: str) -> bytes:
        """Contents of `name` in the first store that has it; what a record points to is asked of `home`."""
        for store in self.stores.values():
            try:
                return store.read_bytes(name)
            except FileNotFoundError:
                continue
        raise FileNotFoundError(name)

    def home(self, record: Record) -> Reader:
        """The store that a record came from."""
        return self.stores.get(str(record.provenance.get(STORE)), self)

    def current(self, sweep: str | None = None, *, curves: bool = True) -> Current:
        """The records that a board of all stores shows, and where the stores disagree."""
        found = {name: store.current(sweep, curves=curves) for name, store in self.stores.items()}
        records = {name: [_from(name, record) for record in each.records] for name, each in found.items()}
        empty = [name for name, each in found.items() if not each.sweeps]
        notes = [f"store {name} has no records" for name in empty] if len(empty) < len(found) else []
        return Current(
            choose(record for each in records.values() for record in each),
            [rejected for each in found.values() for rejected in each.rejected],
            frozenset().union(*(each.sweeps for each in found.values())),
            [*notes, *disagreements(records)],
        )


def disagreements(records: dict[str, list[Record]]) -> Iterator[str]:
    """A line per metric of one cell and stage that two stores have different values of; `records` by store."""
    places = {name: {(record.row, record.cell.seed): record for record in own} for name, own in records.items()}
    for (name, ours), (other, theirs) in combinations(places.items(), 2):
        for place in sorted(ours.keys() & theirs.keys()):
            for metric, a, b in _differing(ours[place], theirs[place]):
                row, seed = place
                yield plain(f"row {row}#{seed}: {metric} of one stage is {a!r} in store {name}, {b!r} in {other}")


def _differing(ours: Record, theirs: Record) -> Iterator[tuple[str, float, float]]:
    values = {(m.protocol, m.metric, m.when, m.data, m.stage_key): m.value for m in ours.measured}
    for m in theirs.measured:
        value = values.get((m.protocol, m.metric, m.when, m.data, m.stage_key))
        if value is None or (isnan(value) and isnan(m.value)):
            continue
        if not isclose(value, m.value, rel_tol=AGREEMENT):
            yield f"{m.protocol} {m.metric}", value, m.value


def _from(name: str, record: Record) -> Record:
    return record.model_copy(update={"provenance": {**record.provenance, STORE: name}})


def _last_part(url: str) -> str:
    return plain(url.rstrip("/").rsplit("/", 1)[-1])


def _shown(url: str) -> str:
    """Without a user and password."""
    return plain(re.sub(r"//[^/@]*@", "//", url))
