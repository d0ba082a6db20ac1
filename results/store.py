"""The store: a directory or any fsspec URL that holds artifacts, records and the ledger of attempts.

Layout:
    store.json                              schema version
    records/<row>-<seed>-<digest>.json      one immutable record per outcome of a cell
    views/records.parquet                   the same in one file, made from them at any time
    artifacts/<stage>/<key>/manifest.json   present = complete; put if absent, names the attempt that won
    artifacts/<stage>/<key>/<attempt>/      that attempt's files
    artifacts/<stage>/<key>/<attempt>.json  the ledger's line on an attempt: started, progress, how it ended
    artifacts/<stage>/<key>/checkpoints/    unfinished work, shared by all attempts
    events/<stage>/<key>/<attempt>/         telemetry of training, a file of JSON lines per batch
    tensorboard/<sweep>/<stage>/            the same for TensorBoard, where a sweep asks for it
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from functools import cached_property
from pathlib import Path
from typing import Any

from results.errors import StoreError
from results.load import parse_record
from results.reader import Current, Rejected
from results.record import Record

STORE_SCHEMA = 1


class Store:
    """Bytes under a root, with an atomic put-if-absent; knows records, leaves artifacts to `results.artifacts`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.local: Path | None = None
        if "://" not in url and "::" not in url:
            self.root = os.path.abspath(os.path.expanduser(url))
            self.local = Path(self.root)
        elif "file" in (self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,)):
            self.local = Path(self.root)
        self._check_schema()

    @cached_property
    def fs(self) -> Any:
        """The file system; a directory's is needed for nothing, so that nothing is imported for it."""
        import fsspec

        try:
            found, self.root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise StoreError(f"store {self.url}: cannot be opened: {error}") from error
        return found

    def _check_schema(self) -> None:
        try:
            if self.local is not None and self.local.exists() and not self.local.is_dir():
                raise StoreError(f"store {self.url}: not a directory")
            found = int(json.loads(self.read_bytes("store.json"))["schema"])
        except FileNotFoundError:
            return
        except StoreError:
            raise
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"store {self.url}: store.json cannot be read: {error}") from error
        if found > STORE_SCHEMA:
            raise StoreError(
                f"store {self.url}: schema {found} was written by a newer weighin (this one: {STORE_SCHEMA})"
            )

    def create(self) -> None:
        """Make the store if it is not there; raise `StoreError` when it cannot be written."""
        try:
            self.put_if_absent("store.json", json.dumps({"schema": STORE_SCHEMA}).encode())
            probe = f"probe-{uuid.uuid4().hex}"
            self.write(probe, b"")
            self.remove(probe)
        except OSError as error:
            raise StoreError(f"store {self.url}: not writable: {error.strerror or error}") from error

    def path(self, name: str) -> str:
        """The file system's own path of `name`."""
        return f"{self.root}/{name}"

    def exists(self, name: str) -> bool:
        return (self.local / name).exists() if self.local else bool(self.fs.exists(self.path(name)))

    def names(self, directory: str) -> list[str]:
        """Names directly under `directory`, sorted; empty when it does not exist."""
        try:
            if self.local:
                return sorted(os.listdir(self.local / directory))
            found = self.fs.ls(self.path(directory), detail=False, refresh=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(entry.rstrip("/").rsplit("/", 1)[-1] for entry in found)

    def read_bytes(self, name: str) -> bytes:
        """Contents of `name`; raises FileNotFoundError, also where the name leads out of the store."""
        if ".." in name.split("/") or name.startswith("/"):
            raise FileNotFoundError(f"{name}: not in the store")
        if self.local:
            return (self.local / name).read_bytes()
        data: bytes = self.fs.cat_file(self.path(name))
        return data

    def read_json(self, name: str) -> Any | None:
        """Parsed contents of `name`, None when it is absent or half-written."""
        try:
            return json.loads(self.read_bytes(name))
        except (FileNotFoundError, json.JSONDecodeError):
            return None

    def write(self, name: str, data: bytes) -> None:
        """Write or replace `name` atomically."""
        if not self.local:
            self.fs.pipe_file(self.path(name), data)
            return
        target = self.local / name
        scratch = self._scratch_beside(target, data)
        os.replace(scratch, target)

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Write `name` unless it exists; False when somebody else was first. Atomic: a link, or a conditional put."""
        if self.local:
            target = self.local / name
            scratch = self._scratch_beside(target, data)
            try:
                os.link(scratch, target)
            except FileExistsError:
                return False
            finally:
                scratch.unlink()
            return True
        try:
            self.fs.pipe_file(self.path(name), data, mode="create")
        except FileExistsError:
            return False
        return True

    def remove(self, name: str) -> None:
        """Delete a file or a tree; nothing happens when it is absent."""
        if self.local:
            target = self.local / name
            if target.is_dir():
                shutil.rmtree(target, ignore_errors=True)
            else:
                target.unlink(missing_ok=True)
        elif self.fs.exists(self.path(name)):
            self.fs.rm(self.path(name), recursive=True)

    def move_in(self, directory: Path, name: str) -> None:
        """Take a local directory into the store as `name`; a rename on the same file system, else an upload."""
        if self.local:
            target = self.local / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(directory, target)
            return
        for file in sorted(p for p in directory.rglob("*") if p.is_file()):
            self.fs.put_file(str(file), self.path(f"{name}/{file.relative_to(directory).as_posix()}"))
        shutil.rmtree(directory)

    def records(self) -> list[Record]:
        """Every readable record, each checked against its schema, by the names of their files."""
        return self.scan()[0]

    def scan(self) -> tuple[list[Record], list[Rejected]]:
        """Every readable record, and every file that is none, with the reason."""
        from results.view import read_everything

        return read_everything(self)

    def current(self, sweep: str | None = None, *, curves: bool = True) -> Current:
        """The records that a board of `sweep` shows, from the Parquet view where it is fresh."""
        from results import view

        return view.current(self, sweep, curves=curves)

    def add_record(self, record: Record, digest: str) -> bool:
        """Publish a record once; `digest` tells outcomes of the same cell apart.

        What is written is checked as it will be when it is read; raises `StoreError` where it would be rejected.
        """
        data = record.model_dump_json(indent=1, warnings=False).encode()
        written = parse_record(data, f"record {record.id}")
        name = f"records/{written.row}-{written.cell.seed}-{digest}.json"
        return self.put_if_absent(name, data)

    @staticmethod
    def _scratch_beside(target: Path, data: bytes) -> Path:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        scratch.write_bytes(data)
        return scratch


def sha256(path: Path) -> str:
    """Hex digest of a file's contents."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
