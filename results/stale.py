"""Rows that are out of date: why, and the command that refreshes them.

A row is stale when one of its columns is of a protocol version that was superseded, or of data that a newer row of the
same teacher no longer has, or when one of its records had to be migrated from an older schema. It is shown greyed. By
its version and data it stands in columns of its own, so that it is never ranked against rows that are up to date there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from results.averages import AVERAGES
from results.load import MIGRATED
from results.model import Column, Row
from results.scores import Evidence

_NAME = re.compile(r"^(?P<stem>.+)\.v(?P<version>\d+)(?:\+(?P<by>.+))?$")
_TEXT_OF_ONES_OWN = "local."
_COMPUTED = ("overall.", *(average.protocol for average in AVERAGES))

Version = tuple[int, ...]


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
    marked = {}
    for teacher in {row.teacher for row in rows}:
        own = [row for row in rows if row.teacher == teacher]
        columns = {row.id: _columns(evidence[row.id]) for row in own}
        newest, data = _versions(columns.values(), present), _newest_data(own, columns)
        for row in own:
            reasons = [*_superseded(columns[row.id], newest, present), *_other_data(columns[row.id], data)]
            marked[row.id] = _marked(row, [*reasons, *_migrated(row)], present)
    return [marked[row.id] for row in rows]


def parted(protocol: str) -> tuple[str, Version]:
    """`x.y.v2` -> `x.y` and its version; of lm-eval's tasks with lm-eval's version after the task's."""
    match = _NAME.match(protocol)
    if match is None:
        return protocol, ()
    return match["stem"], (int(match["version"]), *(int(part) for part in re.findall(r"\d+", match["by"] or "")))


def _columns(evidence: Evidence) -> list[Column]:
    return [each for each in evidence.samples if each.when == "final" and not each.protocol.startswith(_COMPUTED)]


def _versions(columns: Iterable[Sequence[Column]], present: Present) -> dict[str, str]:
    """Stem -> the protocol of the newest version, on the board or offered."""
    newest: dict[str, str] = {}
    for protocol in {each.protocol for own in columns for each in own} | present.protocols:
        stem, version = parted(protocol)
        if stem not in newest or parted(newest[stem])[1] < version:
            newest[stem] = protocol
    return newest


def _superseded(columns: Iterable[Column], newest: Mapping[str, str], present: Present) -> Iterator[tuple[str, str]]:
    """Reasons, with the protocol to measure by instead. Versions that are offered side by side are all current."""
    own = {each.protocol for each in columns}
    for protocol in sorted(own - present.protocols):
        latest = newest[parted(protocol)[0]]
        if latest not in own:
            yield f"measured by {protocol}, which {latest} superseded", latest


def _newest_data(rows: Iterable[Row], columns: Mapping[str, Sequence[Column]]) -> dict[str, str]:
    """Protocol -> the data that the row with the newest record was measured on."""
    data: dict[str, str] = {}
    for row in sorted(rows, key=lambda row: (max(_created(row)), row.id)):
        data |= {each.protocol: each.data for each in columns[row.id]}
    return data


def _created(row: Row) -> list[str]:
    return [str(seed.provenance.get("created_at", "")) for seed in row.seeds]


def _other_data(columns: Iterable[Column], newest: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    found = {(each.protocol, each.data) for each in columns if not each.protocol.startswith(_TEXT_OF_ONES_OWN)}
    for protocol, data in sorted(found):
        if data != newest[protocol]:
            yield f"{protocol} on data {data[-12:]}, a newer row has {newest[protocol][-12:]}", ""


def _migrated(row: Row) -> Iterator[tuple[str, str]]:
    schemas = {seed.provenance[MIGRATED] for seed in row.seeds if MIGRATED in seed.provenance}
    if schemas:
        yield f"recorded by an older weighin (schema {', '.join(map(str, sorted(schemas)))})", ""


def _marked(row: Row, reasons: Sequence[tuple[str, str]], present: Present) -> Row:
    if not reasons:
        return row
    tasks = [protocol for _, protocol in reasons if protocol]
    command = present.run(row.sweep) + (f" (with {', '.join(tasks)} in its tasks)" if tasks else "")
    told = "; ".join(reason for reason, _ in reasons)
    return replace(row, stale=f"{told}; refresh: {command}", refresh=command)
