"""How records are read, which of them a board shows, and how old ones are migrated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from results.errors import StoreError
from results.plain_text import plain
from results.reader import Current, Reader, Rejected
from results.record import SCHEMA, Record
from results.speed_card import from_schema_1

MIGRATED = "migrated_from"
"""In the provenance of a record that was written in an older schema: that schema."""
MAX_BYTES = 2**20
"""Of one record file; a real one has some kilobytes."""
Migration = Callable[[dict[str, Any]], dict[str, Any]]


def _speed_by_form(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "speed": from_schema_1(data["speed"])} if data.get("speed") else data


MIGRATIONS: Mapping[int, Migration] = {1: _speed_by_form}
"""Schema version -> what turns a record of that version into one of the next."""


def parse_record(data: bytes, where: str) -> Record:
    """A record from a file's bytes; raises `StoreError` naming `where` with the reason."""
    if len(data) > MAX_BYTES:
        raise StoreError(f"{where}: {len(data)} bytes are too many for a record (at most {MAX_BYTES})")
    try:
        record = Record.model_validate_json(data)
    except ValidationError:
        pass  # What is wrong is said below, where older schemas are migrated, too.
    else:
        if record.schema_version == SCHEMA:
            return record
    try:
        parsed = from_json(data)
    except ValueError as error:
        what = "empty" if not data.strip() else f"truncated or not JSON: {plain(str(error))}"
        raise StoreError(f"{where}: {what}") from error
    return read_record(parsed, where)


def read_record(data: Any, where: str, migrations: Mapping[int, Migration] | None = None) -> Record:
    """A record from parsed JSON, migrated from an older schema when need be.

    Raises `StoreError` naming `where` when the record is malformed or was written by a newer weighin.
    """
    if not isinstance(data, dict) or type(version := data.get("schema_version")) is not int:
        raise StoreError(f"{where}: not a record (no schema_version)")
    if version > SCHEMA:
        raise StoreError(f"{where}: schema {version} was written by a newer weighin; this one reads up to {SCHEMA}")
    steps, written = MIGRATIONS if migrations is None else migrations, version
    while version < SCHEMA:
        if version not in steps:
            raise StoreError(f"{where}: schema {version} is too old; the oldest readable is {min([*steps, SCHEMA])}")
        try:
            data = steps[version](data)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            told = plain(f"{type(error).__name__} {error}")
            raise StoreError(f"{where}: cannot be migrated from schema {version}: {told}") from error
        version += 1
    try:
        record = Record.model_validate({**data, "schema_version": SCHEMA})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = plain(".".join(map(str, first["loc"])))[:200]
        raise StoreError(f"{where}: {place}: {first['msg'][:200]}") from error
    if written == SCHEMA:
        return record
    return record.model_copy(update={"provenance": {**record.provenance, MIGRATED: written}})


def created_at(record: Record) -> str:
    """When a record was written, as text that sorts by time."""
    return str(record.provenance.get("created_at", ""))


def age_key(record: Record) -> tuple[str, int, str]:
    """Sorts records from old to new; ties are broken by content, so that the order of listing never matters."""
    return created_at(record), record.cell.seed, record.model_dump_json()


def newest(records: Iterable[Record]) -> Record:
    """The last by `age_key`, of which the content is compared only where the rest is equal."""
    first, *others = records
    for record in others:
        ours, theirs = ((created_at(each), each.cell.seed) for each in (first, record))
        if theirs > ours or (theirs == ours and age_key(record) > age_key(first)):
            first = record
    return first


def choose(records: Iterable[Record], sweep: str | None = None) -> list[Record]:
    """One record per (row, seed): the newest complete one, else the newest other; sorted by row and seed.

    A later failure does not hide a result. `sweep` keeps the records of that sweep only.
    """
    places: dict[tuple[str, int], list[Record]] = {}
    for record in records:
        if record.schema_version > SCHEMA:
            raise StoreError(f"record {record.id}: schema {record.schema_version} was written by a newer weighin")
        if sweep is None or record.sweep == sweep:
            places.setdefault((record.row, record.cell.seed), []).append(record)
    return [_best(places[place]) for place in sorted(places)]


def _best(outcomes: Sequence[Record]) -> Record:
    return newest([record for record in outcomes if record.status == "complete"] or outcomes)


def current(reader: Reader, sweep: str | None = None, *, curves: bool = True) -> Current:
    """The records that a board of `sweep`, or of everything, is made of; without loss curves where none are needed.

    Records of one row must describe one cell. Where they do not, those count that agree with most, of equally many
    with the oldest; the others are rejected.
    """
    ask = getattr(reader, "current", None)
    if ask is not None:
        found: Current = ask(sweep, curves=curves)
    else:
        everything = reader.records()
        found = Current(choose(everything, sweep), sweeps=frozenset(record.sweep for record in everything))
    kept, rejected = _one_cell_per_row(found.records)
    return replace(found, records=kept, rejected=[*found.rejected, *rejected]) if rejected else found


def _one_cell_per_row(records: Sequence[Record]) -> tuple[list[Record], list[Rejected]]:
    rows: dict[str, dict[Any, list[Record]]] = {}
    for record in records:
        rows.setdefault(record.row, {}).setdefault(description(record), []).append(record)
    if all(len(described) == 1 for described in rows.values()):
        return list(records), []
    kept, rejected = [], []
    for row, described in rows.items():
        fullest = sorted(described, key=lambda key: (-len(described[key]), min(map(created_at, described[key])), key))
        kept += described[fullest[0]]
        for key in fullest[1:]:
            for each in described[key]:
                reason = "describes another cell than the other records of this row"
                rejected.append(Rejected(f"record {plain(row)}#{each.cell.seed}", reason))
    return kept, rejected


def description(record: Record) -> tuple[str, ...]:
    """What the records of one row have in common."""
    cell = record.cell
    control = cell.control.model_dump_json() if cell.control else ""
    return (cell.teacher, cell.method, repr(cell.budget), cell.recipe, cell.recipe_digest, control)
