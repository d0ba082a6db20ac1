"""The store on a directory and on an object store, its artifacts, checkpoints and leases."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from results import lease as lease_module
from results.artifacts import Artifacts, Attempt, Manifest, new_attempt_id
from results.checkpoints import StoredCheckpoints
from results.errors import StoreError
from results.lease import Lease
from results.record import Cell, Record
from results.store import STORE_SCHEMA, Store, sha256


@pytest.fixture(params=["directory", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A new store of each kind."""
    if request.param == "directory":
        found = Store(str(tmp_path / "store"))
        found.create()
        yield found
        return
    found = Store(f"memory://weighin-{uuid.uuid4().hex}")
    found.create()
    yield found
    found.fs.rm(found.root, recursive=True)


@pytest.fixture
def local(tmp_path: Path) -> Store:
    """A new store in a directory."""
    found = Store(str(tmp_path / "local"))
    found.create()
    return found


def test_put_if_absent_writes_once(store: Store) -> None:
    assert store.put_if_absent("a/b.json", b"1")
    assert not store.put_if_absent("a/b.json", b"2")
    assert store.read_bytes("a/b.json") == b"1"
    assert store.names("a") == ["b.json"]


def test_of_threads_that_race_one_is_first(local: Store) -> None:
    for number in range(20):
        together = Barrier(4)

        def put(value: bytes, name: str = f"race/{number}", together: Barrier = together) -> bool:
            together.wait()
            return local.put_if_absent(name, value)

        values = [b"a" * 1000, b"b" * 1000, b"c" * 1000, b"d" * 1000]
        with ThreadPoolExecutor(4) as pool:
            first = list(pool.map(put, values))
        assert first.count(True) == 1
        assert local.read_bytes(f"race/{number}") == values[first.index(True)]


def test_write_replaces_and_remove_forgives(store: Store) -> None:
    store.write("x", b"1")
    store.write("x", b"2")
    store.write("tree/deep/file", b"3")
    assert store.read_bytes("x") == b"2"
    assert store.exists("tree/deep/file")
    for name in ("x", "tree", "never there"):
        store.remove(name)
        assert not store.exists(name)
    with pytest.raises(FileNotFoundError):
        store.read_bytes("x")
    assert store.names("tree") == []


def test_half_written_json_is_none(store: Store) -> None:
    store.write("half", b'{"a": ')
    assert store.read_json("half") is None
    assert store.read_json("absent") is None


def test_a_directory_moves_in_whole(store: Store, tmp_path: Path) -> None:
    (tmp_path / "out" / "model").mkdir(parents=True)
    (tmp_path / "out" / "model" / "w").write_bytes(b"123")
    (tmp_path / "out" / "curve").write_bytes(b"4")
    store.move_in(tmp_path / "out", "artifacts/s/k/a")
    assert (store.read_bytes("artifacts/s/k/a/model/w"), store.read_bytes("artifacts/s/k/a/curve")) == (b"123", b"4")
    assert not (tmp_path / "out").exists()


def test_creating_again_changes_nothing(store: Store) -> None:
    store.write("x", b"1")
    Store(store.url).create()
    assert store.read_bytes("x") == b"1"
    assert store.read_json("store.json") == {"schema": STORE_SCHEMA}


def test_a_newer_schema_is_refused(store: Store) -> None:
    store.write("store.json", json.dumps({"schema": STORE_SCHEMA + 1}).encode())
    with pytest.raises(StoreError, match=rf"schema {STORE_SCHEMA + 1} was written by a newer weighin"):
        Store(store.url)


@pytest.mark.parametrize("text", [b"{", b"[]", b"{}", b'{"schema": "one"}', b"\xff"])
def test_an_unreadable_schema_is_one_line(store: Store, text: bytes) -> None:
    store.write("store.json", text)
    with pytest.raises(StoreError, match=r"store\.json cannot be read") as caught:
        Store(store.url)
    assert len(str(caught.value).splitlines()) == 1


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"^store \S+file: not a directory$"):
        Store(str(tmp_path / "file"))
    with pytest.raises(StoreError, match=r"file/below: "):
        Store(str(tmp_path / "file" / "below")).create()
    if Path("/proc/self").exists():
        with pytest.raises(StoreError, match=r"store /proc/weighin: not writable"):
            Store("/proc/weighin").create()


def test_a_record_is_added_once_and_read_back(store: Store) -> None:
    cell = Cell(teacher="t", method="m", budget=None, recipe="none", recipe_digest="d", seed=0)
    record = Record(row="r", sweep="s", cell=cell, status="failed", reason="no convergence")
    assert store.add_record(record, "one")
    assert not store.add_record(record, "one")
    assert store.add_record(record, "two")
    assert store.records() == [record, record]
    store.write("records/r-1-x.json", b'{"schema_version": 99}')
    records, rejected = store.scan()
    assert records == [record, record]
    (reason,) = map(str, rejected)
    assert "records/r-1-x.json: schema 99 was written by a newer weighin" in reason


def published(artifacts: Artifacts, attempt: str, text: str) -> bool:
    """Publish one attempt at an artifact `stage/key` of one file."""
    output = artifacts.scratch("stage", "key", attempt)
    (output / "model").mkdir()
    (output / "model" / "weights").write_text(text)
    file = {"bytes": len(text), "sha256": sha256(output / "model" / "weights")}
    manifest = Manifest(stage="stage", key="key", attempt=attempt, result={}, files={"model/weights": file})
    return artifacts.publish(manifest, output)


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where downloads and scratch directories go."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / "weighin-cache"


def test_an_artifact_is_published_once(store: Store, cache: Path) -> None:
    artifacts = Artifacts(store)
    with pytest.raises(StoreError, match="artifact stage/key is not complete"):
        artifacts.directory("stage", "key")
    assert published(artifacts, "1-first", "first")
    assert not published(artifacts, "2-late", "late")
    manifest = artifacts.manifest("stage", "key")
    assert manifest is not None
    assert manifest.attempt == "1-first"
    assert list(artifacts.manifests("stage")) == [manifest]
    assert (artifacts.directory("stage", "key") / "model" / "weights").read_text() == "first"
    assert not store.exists("artifacts/stage/key/2-late/model/weights")


def test_a_damaged_file_is_noticed(local: Store) -> None:
    artifacts = Artifacts(local)
    published(artifacts, "1", "weights")
    path = artifacts.directory("stage", "key") / "model" / "weights"
    path.write_text("short")
    with pytest.raises(StoreError, match=r"artifacts/stage/key/1/model/weights is missing or damaged"):
        artifacts.directory("stage", "key")
    path.unlink()
    with pytest.raises(StoreError, match="missing or damaged"):
        artifacts.directory("stage", "key")


def test_a_damaged_download_is_noticed(cache: Path) -> None:
    artifacts = Artifacts(Store(f"memory://weighin-{uuid.uuid4().hex}"))
    published(artifacts, "1", "weights")
    artifacts.store.write("artifacts/stage/key/1/model/weights", b"WEIGHTS")
    with pytest.raises(StoreError, match="does not match its checksum"):
        artifacts.directory("stage", "key")
    artifacts.store.write("artifacts/stage/key/1/model/weights", b"weights")
    found = artifacts.directory("stage", "key")
    assert found.is_relative_to(cache)
    assert (found / "model" / "weights").read_text() == "weights"


def test_the_ledger_keeps_every_attempt(store: Store) -> None:
    artifacts = Artifacts(store)
    assert artifacts.attempts("s", "k") == []
    killed = Attempt(id="20260101T000000-a", stage="s", key="k", progress={"done": 3})
    lost = Attempt(id="20260102T000000-b", stage="s", key="k", status="failed", failure_class="infrastructure")
    artifacts.note(lost)
    artifacts.note(killed)
    assert artifacts.attempts("s", "k") == [killed, lost]
    assert artifacts.last_failure("s", "k") is None
    raised = Attempt(id="20260103T000000-c", stage="s", key="k", status="failed", failure_class="method", reason="x")
    artifacts.note(raised)
    assert artifacts.last_failure("s", "k") == raised
    assert artifacts.attempt("s", "k", killed.id) == killed
    assert artifacts.attempt("s", "k", "absent") is None


def test_attempt_ids_are_unique() -> None:
    assert len({new_attempt_id() for _ in range(1000)}) == 1000


def test_the_newest_complete_checkpoint_counts_and_two_are_kept(store: Store, cache: Path) -> None:
    artifacts = Artifacts(store)
    checkpoints = StoredCheckpoints(artifacts, "s", "k", "a")
    assert checkpoints.latest() is None
    for step in (5, 50, 500):
        with checkpoints.writing(step) as directory:
            (directory / "weights").write_text(f"at {step}")
    with pytest.raises(FileNotFoundError), checkpoints.writing(1000) as directory:
        (directory / "weights").rename(directory / "a write that ends half-way")
    found = StoredCheckpoints(artifacts, "s", "k", "b").latest()
    assert found is not None
    assert (found[0], (found[1] / "weights").read_text()) == (500, "at 500")
    complete = [n for n in store.names(checkpoints.home) if store.exists(f"{checkpoints.home}/{n}/complete.json")]
    assert complete == ["000000050-a", "000000500-a"]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.write_text("at"), "weights has 2 of 6 bytes"),
        (lambda path: path.write_text("at 501"), "weights does not match its checksum"),
        (lambda path: path.unlink(), "weights is missing"),
        (lambda path: (path.parent / "complete.json").write_text("{"), "complete.json cannot be read"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_and_said(local: Store, damage: Callable[[Path], None], says: str) -> None:
    artifacts, said = Artifacts(local), []
    checkpoints = StoredCheckpoints(artifacts, "s", "k", "a", kept=3, warn=said.append)
    for step in (5, 50, 500):
        with checkpoints.writing(step) as directory:
            (directory / "weights").write_text(f"at {step}")
    assert local.local is not None
    damage(local.local / checkpoints.home / "000000500-a" / "weights")
    found = checkpoints.latest()
    assert found is not None
    assert found[0] == 50
    assert said == [f"checkpoint 000000500-a: {says}; an earlier one is used, or the start"]


def test_a_checkpoint_that_could_not_be_written_leaves_nothing_and_the_others(local: Store) -> None:
    checkpoints = StoredCheckpoints(Artifacts(local), "s", "k", "a")
    with checkpoints.writing(5) as directory:
        (directory / "weights").write_text("at 5")
    with pytest.raises(IsADirectoryError), checkpoints.writing(6) as directory:
        directory.write_text("at 6")
    assert local.names(checkpoints.home) == ["000000005-a"]


def test_publishing_ends_the_checkpoints(store: Store, cache: Path) -> None:
    artifacts = Artifacts(store)
    checkpoints = StoredCheckpoints(artifacts, "stage", "key", "1")
    with checkpoints.writing(5) as directory:
        (directory / "weights").write_text("x")
    published(artifacts, "1", "done")
    assert checkpoints.latest() is None


def test_a_live_lease_is_respected_and_given_back(store: Store) -> None:
    mine, other = Lease(store, "home", "mine"), Lease(store, "home", "other")
    assert mine.try_acquire()
    assert mine.held_by("mine")
    assert not other.held_by("other")
    with mine:
        assert not other.try_acquire()
    assert other.try_acquire()
    assert not mine.held_by("mine")


HOLD = """
import sys
from results.lease import Lease
from results.store import Store
assert Lease(Store(sys.argv[1]), "home", "dead").try_acquire()
"""


def test_the_lease_of_a_process_that_died_is_taken_at_once(local: Store) -> None:
    subprocess.run([sys.executable, "-c", HOLD, local.url], check=True, timeout=60)
    mine = Lease(local, "home", "mine")
    assert mine.held_by("dead")
    assert mine.try_acquire()
    assert mine.held_by("mine")


def test_a_lease_from_elsewhere_is_dead_when_it_stops_changing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own clock says the year 2100: only the watcher's counts."""
    elsewhere = {"attempt": "x", "host": "elsewhere", "boot": "b", "pid": 1, "started": "1", "renewed_at": 4.1e9}
    store.write("home/lease.json", json.dumps(elsewhere).encode())
    now = [1000.0]
    monkeypatch.setattr(lease_module.time, "monotonic", lambda: now[0])
    watcher = Lease(store, "home", "mine")
    assert not watcher.try_acquire()
    now[0] += lease_module.EXPIRE_S - 1
    assert not watcher.try_acquire()
    store.write("home/lease.json", json.dumps(elsewhere | {"renewed_at": 0.0}).encode())
    now[0] += 2
    assert not watcher.try_acquire()
    now[0] += lease_module.EXPIRE_S + 1
    assert watcher.try_acquire()


def test_a_held_lease_is_renewed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "RENEW_S", 0.01)
    lease = Lease(store, "home", "mine")
    assert lease.try_acquire()
    before = store.read_bytes("home/lease.json")
    with lease:
        for _ in range(500):
            if store.read_bytes("home/lease.json") != before:
                break
            lease_module.time.sleep(0.01)
        assert store.read_bytes("home/lease.json") != before
    assert not store.exists("home/lease.json")


def test_a_garbled_lease_is_dead(store: Store) -> None:
    store.write("home/lease.json", b"{")
    assert Lease(store, "home", "mine").try_acquire()


def test_a_kind_of_store_that_does_not_exist_is_refused() -> None:
    with pytest.raises(StoreError, match=r"store nosuch://bucket/x: cannot be opened: .*nosuch"):
        Store("nosuch://bucket/x")
