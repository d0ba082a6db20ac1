"""Records into a store and out of it: the schema, what is rejected and how it is named, the Parquet view."""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from results import headers, view
from results.board import board
from results.errors import StoreError
from results.json_view import dumps
from results.load import MAX_BYTES, choose, parse_record
from results.record import SCHEMA, Record
from results.record_schema import FILE
from results.record_schema import dumps as schema_text
from results.store import Store


@pytest.fixture(params=["directory", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A new store of each kind."""
    if request.param == "directory":
        yield filled(Store(str(tmp_path / "store")))
        return
    found = filled(Store(f"memory://weighin-{uuid.uuid4().hex}"))
    yield found
    found.fs.rm(found.root, recursive=True)


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return filled(Store(str(tmp_path / "store")))


def filled(store: Store) -> Store:
    store.create()
    return store


def outcomes(sweep: Any) -> list[Record]:
    """Two rows of two seeds; of one cell three outcomes, of another a failure alone."""
    return [
        sweep.add("aaaaaaaa", "low_rank", seed=0, created="2026-01-01", quality=0.1),
        sweep.add("aaaaaaaa", "low_rank", seed=0, created="2026-01-02", quality=0.2),
        sweep.add("aaaaaaaa", "low_rank", seed=0, created="2026-01-03", status="failed", reason="node lost"),
        sweep.add("aaaaaaaa", "low_rank", seed=1, created="2026-01-01", quality=0.15),
        sweep.add("bbbbbbbb", "prune", seed=0, created="2026-01-01", sweep="other"),
        sweep.add("bbbbbbbb", "prune", seed=1, created="2026-01-01", status="failed", reason="node lost"),
    ]


def put(store: Store, records: list[Record], start: int = 0) -> None:
    for number, record in enumerate(records, start):
        assert store.add_record(record, f"{number:012x}")


def shown(store: Store, **asked: Any) -> list[Record]:
    return list(store.current(**asked).records)


def test_the_checked_in_schema_is_current_and_describes_every_field() -> None:
    text = files("results").joinpath(FILE).read_text(encoding="utf-8")
    assert text == schema_text(), "weighin schema --record > results/" + FILE
    schema = json.loads(text)
    jsonschema.Draft202012Validator.check_schema(schema)
    for part in (schema, *schema["$defs"].values()):
        assert all(field["description"] for field in part["properties"].values())
        assert part["additionalProperties"] is False


def test_records_follow_the_schema(finished: Any) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(schema_text()))
    odd = finished.records()[1]
    odd = odd.model_copy(update={"measured": [odd.measured[0].model_copy(update={"value": math.inf})]})
    for record in [*finished.records(), odd]:
        data = json.loads(record.model_dump_json())
        validator.validate(data)
        assert parse_record(json.dumps(data).encode(), "x") == record
    assert not validator.is_valid({**data, "schema_version": SCHEMA + 1})
    assert not validator.is_valid({**data, "new": 1})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_not_finite_is_kept_and_never_ranked(local: Store, sweep: Any, value: float) -> None:
    first = sweep.add("aaaaaaaa", "low_rank")
    sweep.add("bbbbbbbb", "prune")
    sick = first.measured[0].model_copy(update={"value": value})
    put(local, [first.model_copy(update={"measured": [sick, first.measured[1]]}), sweep.reader.records()[1]])
    (read,) = (record for record in local.records() if record.row == "aaaaaaaa")
    assert repr(read.measured[0].value) == repr(value)
    (tab,) = board(local).tabs
    scores = {row.id: row.scores[tab.columns[0].key] for row in tab.rows}
    assert scores["aaaaaaaa"].rank is None
    assert not scores["aaaaaaaa"].pareto
    assert scores["bbbbbbbb"].rank == (1, 1)
    local.remove(f"records/bbbbbbbb-0-{1:012x}.json")
    (tab,) = board(local).tabs
    assert not tab.rows[0].scores[tab.columns[0].key].pareto, "alone is no merit either"
    assert json.loads(dumps(board(local)))["tabs"]


def damaged(record: Record) -> dict[str, tuple[bytes, str]]:
    """Name -> a bad file, and what must be said of it."""
    text, data = record.model_dump_json(indent=1), json.loads(record.model_dump_json())
    changed: dict[str, tuple[Any, str]] = {
        "newer": ({**data, "schema_version": 99}, "schema 99 was written by a newer weighin; this one reads up to"),
        "older": ({**data, "schema_version": 0}, "schema 0 is too old"),
        "unversioned": ({"a": 1}, "not a record (no schema_version)"),
        "list": ([1, 2], "not a record (no schema_version)"),
        "true": ({**data, "schema_version": True}, "not a record (no schema_version)"),
        "foreign": ({"schema_version": SCHEMA, "name": "x"}, "row: Field required"),
        "extra": ({**data, "x\x1b[2J": 1}, "x␛[2J: Extra inputs are not permitted"),
        "status": ({**data, "status": "fine"}, "status: Input should be"),
        "path": ({**data, "row": "../../etc"}, "row: String should match pattern"),
        "items": (
            {**data, "measured": [{**data["measured"][0], "items_path": "artifacts/../../secret"}]},
            "measured.0.items_path: String should match pattern",
        ),
        "negative": ({**data, "size": {**data["size"], "params": -1}}, "size.params: Input should be greater than"),
        "huge": ({**data, "size": {**data["size"], "params": 10**400}}, "size.params: "),
        "cost": ({**data, "costs": [{**data["costs"][0], "flops": 1e999}]}, "costs.0.flops: "),
        "long": ({**data, "sweep": "x" * 2000}, "sweep: String should have at most 1000 characters"),
        "fields": ({**data, "cell": {**data["cell"], "fields": {"a": "x" * 20_000}}}, "cell.fields: "),
        "card": ({**data, "schema_version": 1, "speed": [1]}, "cannot be migrated from schema 1: TypeError"),
    }
    found = {name: (json.dumps(value).encode(), told) for name, (value, told) in changed.items()}
    return found | {
        "empty": (b"", "empty"),
        "truncated": (text[: len(text) // 2].encode(), "truncated or not JSON: EOF while parsing"),
        "binary": (b"\x89PNG\r\n\x1a\n\x00", "truncated or not JSON"),
        "deep": (b"[" * 100_000, "truncated or not JSON: recursion limit exceeded"),
        "large": (b" " * (MAX_BYTES + 1), "bytes are too many for a record"),
        "surrogate": (text.replace("demo", "\\ud800", 1).encode(), "truncated or not JSON: "),
    }


def test_every_bad_file_is_named_and_the_rest_is_shown(store: Store, sweep: Any) -> None:
    records = outcomes(sweep)
    put(store, records)
    bad = damaged(records[0])
    for name, (data, _) in bad.items():
        store.write(f"records/{name}.json", data)
    store.write("records/notes.txt", b"hello")
    store.write("records/.half-written.json.1234", b"{")
    found = store.current()
    assert found.records == choose(records)
    told = {str(each).rpartition("records/")[2].partition(": ")[0]: each.reason for each in found.rejected}
    assert told.keys() == {f"{name}.json" for name in bad} | {"notes.txt"}
    for name, (_, reason) in bad.items():
        assert told[f"{name}.json"].startswith(reason) or reason in told[f"{name}.json"], name
        assert told[f"{name}.json"].isprintable()
    assert [str(each) for each in store.scan()[1]] == [str(each) for each in found.rejected]
    assert store.records() == sorted(store.records(), key=lambda record: (record.row, record.cell.seed))


def test_what_is_no_file_is_named(local: Store, sweep: Any) -> None:
    assert local.local is not None
    put(local, outcomes(sweep))
    directory = local.local / "records"
    (directory / "folder.json").mkdir()
    os.mkfifo(directory / "pipe.json")
    (directory / "gone.json").symlink_to(directory / "nowhere")
    Path(os.fsdecode(os.fsencode(directory) + b"/\xff\x1b[2J.json")).write_bytes(b"{}")
    found = local.current()
    assert len(found.records) == 4
    told = [str(each) for each in found.rejected]
    assert len(told) == 4
    assert all(line.isprintable() for line in told)
    assert sum("not a file" in line for line in told) == 2


def test_what_would_be_rejected_is_not_written(store: Store, sweep: Any) -> None:
    record = sweep.add("aaaaaaaa", "low_rank")
    for change in ({"row": "../up"}, {"status": "fine"}, {"sweep": "x" * 2000}):
        with pytest.raises(StoreError, match=f"record .*: {next(iter(change))}: "):
            store.add_record(record.model_copy(update=change), "d" * 12)
    assert store.names("records") == []


@pytest.mark.parametrize("name", ["../secret", "a/../../secret", "/etc/passwd"])
def test_a_store_reads_nothing_outside_itself(store: Store, name: str) -> None:
    with pytest.raises(FileNotFoundError):
        store.read_bytes(name)


def test_the_view_gives_the_same_board_and_follows_every_change(store: Store, sweep: Any) -> None:
    records = outcomes(sweep)
    put(store, records)
    fresh = {"all": shown(store), "other": shown(store, sweep="other"), "bare": shown(store, curves=False)}
    assert fresh["all"] == choose(records)
    view.rebuild(store)
    assert store.exists(view.NAME)
    assert {"all": shown(store), "other": shown(store, sweep="other")} == {k: fresh[k] for k in ("all", "other")}
    assert shown(store, curves=False) == [record.model_copy(update={"curve": []}) for record in fresh["all"]]
    assert store.current().sweeps == {"demo", "other"}
    store.remove(f"records/{records[1].row}-0-{1:012x}.json")
    assert shown(store) == choose([records[0], *records[2:]])
    put(store, [records[1]], 1)
    later = sweep.add("aaaaaaaa", "low_rank", seed=1, created="2027", quality=0.9)
    put(store, [later], 50)
    assert shown(store) == choose([*records, later])


def read_names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Fills with the names of record files whose header is read."""
    names: list[str] = []
    original = headers.read_header
    monkeypatch.setattr(headers, "read_header", lambda file, read: names.append(file) or original(file, read))
    return names


def test_adding_a_record_reads_that_one_alone(store: Store, sweep: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, outcomes(sweep))
    view.rebuild(store)
    read = read_names(monkeypatch)
    before = shown(store)
    assert read == []
    put(store, [sweep.add("cccccccc", "prune")], 60)
    assert len(shown(store)) == len(before) + 1
    assert read == [f"cccccccc-0-{60:012x}.json"]


def test_a_shown_or_rejected_file_that_changes_in_place_is_read_again(local: Store, sweep: Any) -> None:
    records = outcomes(sweep)
    put(local, records)
    local.write("records/bad.json", b"{")
    view.rebuild(local)
    assert [each.reason[:9] for each in local.current().rejected] == ["truncated"]
    local.write("records/bad.json", sweep.add("dddddddd", "prune").model_dump_json().encode())
    assert not local.current().rejected
    name = f"records/bbbbbbbb-0-{4:012x}.json"
    local.write(name, local.read_bytes(name)[:100])
    found = local.current()
    assert [name in str(each) for each in found.rejected] == [True]
    assert {record.row for record in found.records} == {"aaaaaaaa", "bbbbbbbb", "dddddddd"}


@pytest.mark.parametrize("harm", ["cut", "foreign", "flipped"])
def test_a_damaged_view_is_read_past(local: Store, sweep: Any, harm: str) -> None:
    put(local, outcomes(sweep))
    view.rebuild(local)
    good = local.read_bytes(view.NAME)
    middle = len(good) // 3
    flipped = good[:middle] + bytes(255 - byte for byte in good[middle : middle + 400]) + good[middle + 400 :]
    local.write(view.NAME, {"cut": good[:100], "foreign": b"PAR1 is not this", "flipped": flipped}[harm])
    assert len(shown(local)) == 4


def test_a_view_is_kept_once_it_is_worth_it(local: Store, sweep: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    put(local, outcomes(sweep))
    shown(local)
    assert not local.exists(view.NAME)
    monkeypatch.setattr(view, "WORTH", 3)
    shown(local)
    assert local.exists(view.NAME)


def test_several_processes_find_what_one_finds(local: Store, sweep: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    put(local, outcomes(sweep))
    local.write("records/bad.json", b"{")
    alone = local.current()
    monkeypatch.setattr(headers, "SHARE", 3)
    monkeypatch.setattr(headers, "_cores", lambda: 2)
    assert local.current() == alone
    monkeypatch.setattr(headers.sys, "executable", "/bin/false")
    assert local.current() == alone


def test_no_records_are_no_error(store: Store) -> None:
    assert store.current().records == []
    assert view.rebuild(store).records == []
    assert "weighin run" in board(store).message
    store.write("records/bad.json", b"{")
    assert "1 file is no readable record" in board(store).message
