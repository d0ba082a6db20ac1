"""Rows that are out of date: why, and the command that refreshes them.

A row is stale when one of its columns is of a protocol version that was superseded, or of data that a newer row of the
same teacher no longer has, or when one of its records had to be migrated from an older schema. It is shown greyed, and
it is never ranked, on no front and in no comparison, in whatever form a board takes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from results.averages import AVERAGES
from results.load import MIGRATED
from results.model import Column, Row
from results.record import Record
from results.scores import Evidence, column_of

_NAME = re.compile(r"^(?P<stem>.+)\.v(?P<version>\d+)(?:\+(?P<by>.+))?$")
_TEXT_OF_ONES_OWN = "local."
_COMPUTED = ("overall.", *(average.protocol for average in AVERAGES))

Version = tuple[int, ...]
Pair = tuple[str, str]
"""A protocol, and the data that it was measured on."""


@dataclass(frozen=True, kw_only=True)
class Present:
    """What the present code offers, which a store does not say."""

    protocols: frozenset[str] = frozenset()
    """Names of the protocols that can be measured; empty when that is not known."""
    sweeps: Mapping[str, str] = field(default_factory=dict)
    """Name of a sweep -> its file."""

    def run(self, sweep: str) -> str:
        """The command that runs a sweep."""
        return f"weighin run {self.sweeps.get(sweep, f'{sweep}.yaml')}"


def mark_stale(rows: Sequence[Row], evidence: Mapping[str, Evidence], present: Present | None = None) -> list[Row]:
    """The rows, those marked that are out of date among the rows of their teacher."""
    present = present or Present()
    teachers: dict[str, list[tuple[Row, list[Pair]]]] = {}
    for row in rows:
        teachers.setdefault(row.teacher, []).append((row, _pairs(evidence[row.id].samples)))
    marked: dict[str, Row] = {}
    for own in teachers.values():
        judge = _Judge([(_created(row), row.id, pairs) for row, pairs in own], present)
        marked |= {row.id: stale for row, pairs in own if (stale := judge.marked(row, pairs)) is not row}
    return [marked.get(row.id, row) for row in rows]


def mark_one(row: Row, records: Iterable[Record], present: Present | None = None) -> Row:
    """As `mark_stale` for one row, among the records of a store."""
    seen: dict[str, tuple[str, str, list[Pair]]] = {}
    for record in records:
        if record.cell.teacher == row.teacher and record.status == "complete":
            created, _, pairs = seen.get(record.row, ("", "", []))
            pairs += _pairs(column_of(each) for each in record.measured if each.main)
            seen[record.row] = max(created, str(record.provenance.get("created_at", ""))), record.row, pairs
    return _Judge([*seen.values()], present or Present()).marked(row, seen[row.id][2] if row.id in seen else [])


def parted(protocol: str) -> tuple[str, Version]:
    """`x.y.v2` -> `x.y` and its version; of lm-eval's tasks with lm-eval's version after the task's."""
    match = _NAME.match(protocol)
    if match is None:
        return protocol, ()
    return match["stem"], (int(match["version"]), *(int(part) for part in re.findall(r"\d+", match["by"] or "")))


def _pairs(columns: Iterable[Column]) -> list[Pair]:
    """Of the columns that were measured, not computed."""
    return [
        (each.protocol, each.data)
        for each in columns
        if each.when == "final" and not each.protocol.startswith(_COMPUTED)
    ]


class _Judge:
    """What is up to date among the rows of one teacher."""

    def __init__(self, rows: Iterable[tuple[str, str, Sequence[Pair]]], present: Present) -> None:
        """Each row's newest record's time, its id, and what it was measured by."""
        self.present = present
        self.data: dict[str, str] = {}
        """Protocol -> the data of the row with the newest record."""
        for *_, pairs in sorted(rows):
            self.data.update(pairs)
        newest = _newest_versions({*self.data, *present.protocols})
        self.superseded = {
            protocol: newest[parted(protocol)[0]]
            for protocol in self.data
            if protocol not in present.protocols and newest[parted(protocol)[0]] != protocol
        }

    def marked(self, row: Row, pairs: Sequence[Pair]) -> Row:
        """The row itself when nothing is wrong with it."""
        reasons = [*self._by_protocol(pairs), *self._by_data(pairs), *_by_schema(row)]
        if not reasons:
            return row
        tasks = list(dict.fromkeys(protocol for _, protocol in reasons if protocol))
        command = self.present.run(row.sweep) + (f" (with {', '.join(tasks)} in its tasks)" if tasks else "")
        told = "; ".join(reason for reason, _ in reasons)
        return replace(row, stale=f"{told}; refresh: {command}", refresh=command)

    def _by_protocol(self, pairs: Sequence[Pair]) -> Iterator[tuple[str, str]]:
        """Reasons, with the protocol to measure by instead; versions that are offered side by side are all current."""
        if not self.superseded:
            return
        own = {protocol for protocol, _ in pairs}
        for protocol in sorted(own & self.superseded.keys()):
            latest = self.superseded[protocol]
            if latest not in own:
                yield f"measured by {protocol}, which {latest} superseded", latest

    def _by_data(self, pairs: Sequence[Pair]) -> Iterator[tuple[str, str]]:
        others = [pair for pair in pairs if self.data[pair[0]] != pair[1] and not pair[0].startswith(_TEXT_OF_ONES_OWN)]
        for protocol, data in sorted(set(others)):
            yield f"{protocol} on data {data[-12:]}, a newer row has {self.data[protocol][-12:]}", ""


def _newest_versions(protocols: Iterable[str]) -> dict[str, str]:
    """Stem -> the protocol of the newest version."""
    newest: dict[str, str] = {}
    for protocol in sorted(protocols):
        stem, version = parted(protocol)
        if stem not in newest or parted(newest[stem])[1] < version:
            newest[stem] = protocol
    return newest


def _created(row: Row) -> str:
    return max(str(seed.provenance.get("created_at", "")) for seed in row.seeds)


def _by_schema(row: Row) -> Iterator[tuple[str, str]]:
    schemas = {str(seed.provenance[MIGRATED])[:20] for seed in row.seeds if MIGRATED in seed.provenance}
    if schemas:
        yield f"recorded by an older weighin (schema {', '.join(sorted(schemas))})", ""
