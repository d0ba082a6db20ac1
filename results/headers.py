"""The headers of a store's records: what says which of them a board shows. Every file is validated in full for it.

Many files are read by several processes, each with its share; they tell their findings as JSON.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from results.errors import StoreError
from results.load import MAX_BYTES, created_at, parse_record

if TYPE_CHECKING:
    from results.store import Store

SHARE = 4000
"""Files that are worth a process of their own."""
MAX_PROCESSES = 8
FIRST_READ = 2**16
READ_ONLY = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
"""A pipe is not waited for."""
CHANGED = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")
"""Where file systems say which version of a file it is."""


Stamp = tuple[int, str]
"""Size in bytes and time of change: what tells whether a file has changed."""

NO_STAMP = (-1, "")
Read = Callable[[str], tuple[bytes, Stamp]]


class Header(NamedTuple):
    """One file of `records/`."""

    file: str
    rejected: str = ""
    """Why it is not shown; the rest is then empty."""
    sweep: str = ""
    row: str = ""
    seed: int = 0
    complete: bool = False
    created: str = ""
    bytes: int = -1
    modified: str = ""

    @property
    def stamp(self) -> Stamp:
        """Of the file when it was read."""
        return self.bytes, self.modified


def listing(store: Store) -> tuple[list[str], list[Header]]:
    """The sorted names of a store's record files, and what else lies beside them, rejected.

    Names that start with a dot are writes that were cut off; they were never records.
    """
    found = store.names("records")
    names = [name for name in found if name.endswith(".json") and name.isascii() and name[0] != "."]
    other = sorted(set(found) - set(names)) if len(names) < len(found) else []
    return names, [Header(name, "not a record: names are ASCII and end in .json") for name in other if name[0] != "."]


def stamps(store: Store, names: Iterable[str]) -> dict[str, Stamp]:
    """Of each file its size and when it was changed; files that are gone are left out."""
    found: dict[str, Stamp] = {}
    if store.local:
        directory = str(store.local / "records")
        for name in names:
            with suppress(OSError):
                told = os.stat(f"{directory}/{name}")
                found[name] = (told.st_size, str(told.st_mtime_ns))
        return found
    wanted = set(names)
    for entry in store.fs.ls(store.path("records"), detail=True) if wanted else ():
        name = entry["name"].rsplit("/", 1)[-1]
        if name in wanted:
            changed = next((str(entry[word]) for word in CHANGED if entry.get(word)), "")
            found[name] = (int(entry.get("size") or 0), changed)
    return found


def read_file(path: str) -> tuple[bytes, Stamp]:
    """A small file's contents and stamp, in as few calls of the system as that takes."""
    descriptor = os.open(path, READ_ONLY)
    try:
        told = os.fstat(descriptor)
        if not stat.S_ISREG(told.st_mode):
            raise OSError(errno.EINVAL, "not a file")
        data = os.read(descriptor, FIRST_READ)
        while len(data) >= FIRST_READ and (more := os.read(descriptor, MAX_BYTES)):
            data += more
            if len(data) > MAX_BYTES:
                break
    finally:
        os.close(descriptor)
    return data, (told.st_size, str(told.st_mtime_ns))


def read_header(file: str, read: Read) -> Header:
    """Validate one file; what is wrong with it stands in its header."""
    stamp = NO_STAMP
    try:
        data, stamp = read(file)
        record = parse_record(data, "")
    except StoreError as error:
        return Header(file, str(error).removeprefix(": "), "", "", 0, False, "", *stamp)
    except OSError as error:
        return Header(file, cannot(error))
    complete = record.status == "complete"
    return Header(file, "", record.sweep, record.row, record.cell.seed, complete, created_at(record), *stamp)


def read_headers(files: Sequence[str], read: Read, directory: Path | None) -> list[Header]:
    """The headers of many files, by several processes where they lie in a local `directory`."""
    count = min(len(files) // SHARE + 1, _cores(), MAX_PROCESSES) if directory else 1
    shares = [files[place::count] for place in range(count)]
    with uncollected():
        others = [_Share(directory, share) for share in shares[1:]] if directory else []
        found = [read_header(file, read) for file in shares[0]]
        for other in others:
            headers = other.headers()
            found += [read_header(file, read) for file in other.files] if headers is None else headers
    return found


def current_files(headers: Iterable[Header]) -> set[str]:
    """The files that may be shown, by `results.load.choose`: of each sweep, row and seed the newest complete, else the
    newest other; several where they were written in the same second."""
    best: dict[tuple[str, str, int], tuple[bool, str]] = {}
    files: dict[tuple[str, str, int], list[str]] = {}
    for file, rejected, sweep, row, seed, complete, created, *_ in headers:
        if rejected:
            continue
        place, age = (sweep, row, seed), (complete, created)
        known = best.get(place)
        if known is None or age > known:
            best[place], files[place] = age, [file]
        elif age == known:
            files[place].append(file)
    return {file for names in files.values() for file in names}


def cannot(error: OSError) -> str:
    return "gone while it was read" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def uncollected() -> Iterator[None]:
    """Without the cyclic garbage collector, which would walk over all records again and again; they hold no cycles."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


class _Share:
    """Files that another process reads; both sides of the talk are temporary files, so that neither waits."""

    def __init__(self, directory: Path, files: Sequence[str]) -> None:
        import subprocess
        import tempfile

        self.files = files
        self.told = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `headers`
        with tempfile.TemporaryFile() as asked:
            asked.write(json.dumps(files).encode())
            asked.seek(0)
            command = [sys.executable, "-m", "results.headers", str(directory)]
            self.process = subprocess.Popen(command, env=_environment(), stdin=asked, stdout=self.told)

    def headers(self) -> list[Header] | None:
        """None where the process failed; its share must be read here then."""
        with self.told:
            if self.process.wait():
                return None
            self.told.seek(0)
            return [Header(*each) for each in json.load(self.told)]


def _environment() -> dict[str, str]:
    """This checkout first."""
    paths = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def main() -> None:
    """Read the files that standard input names."""
    directory = sys.argv[1]
    with uncollected():
        headers = [read_header(file, lambda name: read_file(f"{directory}/{name}")) for file in json.load(sys.stdin)]
    sys.stdout.write(json.dumps(headers))


if __name__ == "__main__":
    main()
