"""The Parquet view of a store's records, `views/records.parquet`: what a board needs of them in one file.

It is made of the records alone, may be deleted at any time, and is used only where it agrees with the listing of
`records/` and with the schema. Otherwise the files that are new or changed are read,
and nothing else. Each line is a file: superseded outcomes have their header alone, those that a board may show have
the record, too, and rejected files have the reason.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.resources import files as resources
from typing import TYPE_CHECKING, Any

from results.errors import StoreError
from results.headers import (
    NO_STAMP,
    Header,
    Read,
    Stamp,
    cannot,
    current_files,
    listing,
    read_file,
    read_headers,
    stamps,
)
from results.load import choose, parse_record
from results.plain_text import plain
from results.reader import Current, Rejected
from results.record import Record

if TYPE_CHECKING:
    import pyarrow

    from results.store import Store

NAME = "views/records.parquet"
FORM = 1
"""Of the view; another one is not read."""
TYPES = ("string", "string", "string", "string", "int64", "bool_", "string", "int64", "string", "string", "string")
UNREADABLE = (OSError, ValueError, KeyError, TypeError)
"""What pyarrow raises of a damaged file; a view is then read past."""
WORTH = 200
"""A board writes the view again when it had to read so many files."""
NO_CURVE = ',"curve":[]'


@dataclass
class Scan:
    """What was found in `records/`: a header per file, and the records that a board may show."""

    headers: dict[str, Header]
    bodies: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    """File -> (record without its curve, curve) as JSON, where the view had it."""
    records: dict[str, Record] = field(default_factory=dict)
    """File -> record, where it was read from its own file."""
    num_read: int = 0

    @property
    def shown(self) -> set[str]:
        """Files that a board may show."""
        return {*self.bodies, *self.records}

    @property
    def rejected(self) -> list[Header]:
        return [header for header in self.headers.values() if header.rejected]


def current(store: Store, sweep: str | None = None, *, curves: bool = True) -> Current:
    """The records that a board of `sweep` is made of, from the view where it is fresh, else from their files.

    A view that had to be read past is written again, where the store may be written.
    """
    names, other = listing(store)
    asked = _Asked(store, sweep, curves, other)
    view = _open(store) if names else None
    try:
        if view is not None and (found := asked.of_view(view, names)) is not None:
            return found
        scan = _scan(store, names, view)
    except UNREADABLE:
        scan = _scan(store, names, None)
    if scan.num_read >= WORTH:
        with suppress(OSError):
            store.write(NAME, _parquet(scan))
    return asked.of_scan(scan)


def read_everything(store: Store) -> tuple[list[Record], list[Rejected]]:
    """Every readable record by the names of their files, superseded ones too, and every rejected file."""
    names, rejected = listing(store)
    records, read = [], _reader(store, names)
    for file in names:
        try:
            records.append(parse_record(read(file)[0], ""))
        except StoreError as error:
            rejected.append(Header(file, str(error).removeprefix(": ")))
        except OSError as error:
            rejected.append(Header(file, cannot(error)))
    return records, _named(store, rejected)


def _named(store: Store, rejected: Iterable[Header]) -> list[Rejected]:
    return [Rejected(plain(f"store {store.url}: records/{each.file}"), each.rejected) for each in sorted(rejected)]


def rebuild(store: Store) -> Current:
    """Write the view anew from the records alone; raises `StoreError` where it cannot be written."""
    names, other = listing(store)
    scan = _scan(store, names, None)
    try:
        if names:
            store.write(NAME, _parquet(scan))
        else:
            store.remove(NAME)
    except OSError as error:
        raise StoreError(f"store {store.url}: {NAME} cannot be written: {error.strerror or error}") from error
    return _Asked(store, None, False, other).of_scan(scan)


@dataclass(frozen=True)
class _Asked:
    """Which part of what was found is asked for."""

    store: Store
    sweep: str | None
    curves: bool
    other: Sequence[Header]

    def of_view(self, view: Any, names: Sequence[str]) -> Current | None:
        """None where the view is stale. Only the lines that a board may show are read; they come first."""
        metadata = view.schema_arrow.metadata
        if metadata[b"names"] != _digest(names):
            return None
        told = json.loads(metadata[b"shown"])
        columns = ["file", "rejected", "sweep", "bytes", "modified", "record", *(["curve"] if self.curves else [])]
        table = view.read_row_groups(list(range(told["row_groups"])), columns=columns)
        files, reasons, sweeps, sizes, changed, texts, *more = (table.column(name).to_pylist() for name in columns)
        now = stamps(self.store, files)
        if any(now.get(file) != then for file, then in zip(files, zip(sizes, changed, strict=True), strict=True)):
            return None
        records = [
            _of_body(text, curve)
            for sweep, text, curve in zip(sweeps, texts, *(more or [[None] * len(files)]), strict=True)
            if text is not None and self.sweep in (None, sweep)
        ]
        rejected = [*self.other, *(Header(*each) for each in zip(files, reasons, strict=True) if each[1])]
        return Current(choose(records), _named(self.store, rejected), frozenset(told["sweeps"]))

    def of_scan(self, scan: Scan) -> Current:
        wanted = [file for file in scan.shown if self.sweep in (None, scan.headers[file].sweep)]
        records = [scan.records[file] if file in scan.records else _of_body(*scan.bodies[file]) for file in wanted]
        sweeps = frozenset(header.sweep for header in scan.headers.values() if not header.rejected)
        return Current(choose(records), _named(self.store, [*self.other, *scan.rejected]), sweeps)


def _scan(store: Store, names: Sequence[str], view: Any) -> Scan:
    """Headers of all files; records of those that a board may show. Files that the view knows are not read again."""
    scan = _known(view, stamps(store, names)) if view is not None else Scan({})
    new = [name for name in names if name not in scan.headers]
    scan.num_read = len(new)
    read = _reader(store, new)
    for header in read_headers(new, read, store.local / "records" if store.local else None):
        scan.headers[header.file] = header
    shown = current_files(scan.headers.values())
    scan.bodies = {file: body for file, body in scan.bodies.items() if file in shown}
    for file in shown - scan.bodies.keys():
        try:
            scan.records[file] = parse_record(read(file)[0], "")
        except (OSError, StoreError) as error:
            scan.headers[file] = Header(file, f"changed while it was read: {plain(str(error))}")
    return scan


def _reader(store: Store, names: Sequence[str]) -> Read:
    if store.local:
        directory = str(store.local / "records")
        return lambda file: read_file(f"{directory}/{file}")
    found = stamps(store, names)
    return lambda file: (store.read_bytes(f"records/{file}"), found.get(file, NO_STAMP))


def _known(view: Any, now: Mapping[str, Stamp]) -> Scan:
    """What a stale view says of the files that have not changed."""
    table = view.read(columns=[*Header._fields, "record", "curve"])
    lines = zip(*(table.column(name).to_pylist() for name in table.column_names), strict=True)
    scan = Scan({})
    for *fields, text, curve in lines:
        header = Header(*fields)
        if now.get(header.file) == header.stamp and not header.rejected:
            scan.headers[header.file] = header
            if text is not None:
                scan.bodies[header.file] = (text, curve)
    return scan


def _of_body(text: str, curve: str | None) -> Record:
    return Record.model_validate_json(f'{text[:-1]},"curve":{curve}}}' if curve else text)


def _body(record: Record | None) -> tuple[str | None, str | None]:
    if record is None:
        return None, None
    curve = json.dumps(record.curve, separators=(",", ":")) if record.curve else ""
    return record.model_copy(update={"curve": []}).model_dump_json().replace(NO_CURVE, "", 1), curve


def _digest(names: Sequence[str]) -> bytes:
    """Of the sorted names, the schema and the view's form."""
    schema = resources("results").joinpath("schema", "record.v2.json").read_bytes()
    return hashlib.sha256(b"%d\n%s\n%s" % (FORM, schema, "\n".join(names).encode())).hexdigest().encode()


def _open(store: Store) -> Any:
    """The view as a Parquet file; None where there is none of this form that can be read."""
    import pyarrow.parquet as pq

    try:
        path = store.local / NAME if store.local else io.BytesIO(store.read_bytes(NAME))
        view = pq.ParquetFile(path, memory_map=store.local is not None)
    except UNREADABLE:
        return None
    told = view.schema_arrow.metadata or {}
    return view if told.get(b"form") == b"%d" % FORM and {b"names", b"shown"} <= told.keys() else None


def _parquet(scan: Scan) -> bytes:
    import pyarrow.parquet as pq

    shown = sorted(scan.shown | {header.file for header in scan.rejected})
    sweeps = sorted({header.sweep for header in scan.headers.values() if not header.rejected})
    told = json.dumps({"row_groups": 1 if shown else 0, "sweeps": sweeps}).encode()
    metadata = {b"form": b"%d" % FORM, b"names": _digest(sorted(scan.headers)), b"shown": told}
    stream, writer = io.BytesIO(), None
    for names in (shown, sorted(scan.headers.keys() - set(shown))):
        if names:
            table = _table(scan, names).replace_schema_metadata(metadata)
            writer = writer or pq.ParquetWriter(stream, table.schema, compression="zstd")
            writer.write_table(table, row_group_size=len(table))
    assert writer is not None, "a view of nothing"
    writer.close()
    return stream.getvalue()


def _table(scan: Scan, names: Sequence[str]) -> pyarrow.Table:
    import pyarrow

    fields = zip(*(scan.headers[name] for name in names), strict=True)
    bodies = (scan.bodies.get(name) or _body(scan.records.get(name)) for name in names)
    named = zip((*Header._fields, "record", "curve"), (*fields, *zip(*bodies, strict=True)), TYPES, strict=True)
    return pyarrow.table({name: pyarrow.array(column, getattr(pyarrow, type_)()) for name, column, type_ in named})
