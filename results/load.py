"""Which records a board shows, and how old ones are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from results.errors import StoreError
from results.record import SCHEMA, Record
from results.speed_card import from_schema_1

MIGRATED = "migrated_from"
"""In the provenance of a record that was written in an older schema: that schema."""
Migration = Callable[[dict[str, Any]], dict[str, Any]]


def _speed_by_form(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "speed": from_schema_1(data["speed"])} if data.get("speed") else data


MIGRATIONS: Mapping[int, Migration] = {1: _speed_by_form}
"""Schema version -> what turns a record of that version into one of the next."""


def read_record(data: Any, where: str, migrations: Mapping[int, Migration] | None = None) -> Record:
    """A record from parsed JSON, migrated from an older schema when need be.

    Raises `StoreError` naming `where` when the record is malformed or was written by a newer weighin.
    """
    if not isinstance(data, dict) or not isinstance(version := data.get("schema_version"), int):
        raise StoreError(f"{where}: not a record (no schema_version)")
    if version > SCHEMA:
        raise StoreError(f"{where}: schema {version} was written by a newer weighin; this one reads up to {SCHEMA}")
    steps, written = MIGRATIONS if migrations is None else migrations, version
    while version < SCHEMA:
        if version not in steps:
            raise StoreError(f"{where}: schema {version} is too old; the oldest readable is {min([*steps, SCHEMA])}")
        data, version = steps[version](data), version + 1
    try:
        record = Record.model_validate({**data, "schema_version": SCHEMA})
    except ValidationError as error:
        first = error.errors()[0]
        raise StoreError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    if written == SCHEMA:
        return record
    return record.model_copy(update={"provenance": {**record.provenance, MIGRATED: written}})


def age_key(record: Record) -> tuple[str, str]:
    """Sorts records from old to new; ties are broken by content, so that the order of listing never matters."""
    return str(record.provenance.get("created_at", "")), record.model_dump_json()


def choose(records: Iterable[Record], sweep: str | None = None) -> list[Record]:
    """One record per (row, seed): the newest complete one, else the newest other; sorted by row and seed.

    A later failure does not hide a result. `sweep` keeps the records of that sweep only.
    """
    chosen: dict[tuple[str, int], Record] = {}
    for record in records:
        if record.schema_version > SCHEMA:
            raise StoreError(f"record {record.id}: schema {record.schema_version} was written by a newer weighin")
        if sweep is not None and record.sweep != sweep:
            continue
        place = (record.row, record.cell.seed)
        rival = chosen.get(place)
        if rival is None or _precedence(record) > _precedence(rival):
            chosen[place] = record
    return [chosen[place] for place in sorted(chosen)]


def _precedence(record: Record) -> tuple[bool, tuple[str, str]]:
    return record.status == "complete", age_key(record)
