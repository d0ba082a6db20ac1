"""What the command line says of record files: a board of the good ones, a line for each bad one, exit codes."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest
from micro_sweep import weighin

from results.record import Cell, Record
from results.store import Store


def record(row: str = "aaaaaaaa", seed: int = 0, reason: str = "") -> Record:
    cell = Cell(teacher="t", method=f"m{row[0]}", budget=None, recipe="none", recipe_digest="d", seed=seed)
    return Record(row=row, sweep="s", cell=cell, status="failed" if reason else "complete", reason=reason)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(str(tmp_path / "store"))
    found.create()
    return found


@pytest.fixture
def mixed(store: Store) -> Store:
    """Two records that can be read, and three that cannot."""
    for number in range(2):
        store.add_record(record(seed=number), f"{number:012x}")
    store.write("records/cut.json", b'{"schema_version": 2, "row"')
    store.write("records/newer.json", b'{"schema_version": 99}')
    store.write("records/\x1b[2J.json", b"[]")
    return store


@pytest.mark.parametrize("form", ["table", "md", "csv", "json", "html"])
def test_a_board_is_made_of_what_can_be_read(mixed: Store, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEIGHIN_STORE", mixed.url)
    ended = weighin("board", "--format", form)
    assert ended.code == 0
    assert "aaaaaaaa" in ended.out
    lines = ended.err.splitlines()
    assert [line.rpartition("records/")[2] for line in lines] == [
        "␛[2J.json: not a record (no schema_version)",
        "cut.json: truncated or not JSON: EOF while parsing an object at line 1 column 27",
        "newer.json: schema 99 was written by a newer weighin; this one reads up to 2",
    ]
    assert all(line.startswith(f"warning: store {mixed.url}: ") for line in lines)
    if form != "csv":
        assert "3 files are no readable records" in ended.out or form == "table"


def test_other_commands_read_past_bad_files_too(mixed: Store, tmp_path: Path) -> None:
    assert weighin("show", "aaaaaaaa", "--store", mixed.url).code == 0
    ended = weighin("export", "aaaaaaaa", tmp_path / "out", "--store", mixed.url)
    assert (ended.code, "has no student" in ended.err) == (2, True)


def test_nothing_readable_is_an_error(store: Store) -> None:
    store.write("records/cut.json", b"{")
    ended = weighin("board", "--store", store.url)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.splitlines()[0].startswith("warning: ")
    assert ended.err.splitlines()[1] == "error: none of 1 record files can be read"


def test_an_empty_store_is_no_error(store: Store) -> None:
    ended = weighin("board", "--store", store.url)
    assert (ended.code, ended.err) == (0, "")
    assert "No results yet" in ended.out


def test_of_ten_seeds_three_failed(store: Store) -> None:
    for seed in range(10):
        store.add_record(record(seed=seed, reason="node lost" if seed in (2, 5, 7) else ""), f"{seed:012x}")
    data = json.loads(weighin("board", "--store", store.url, "--format", "json").out)
    (row,) = data["tabs"][0]["references"]
    assert (row["status"], row["reason"]) == ("failed", "seed 2, 5, 7: node lost")
    assert [seed["status"] for seed in row["seeds"]].count("complete") == 7


def test_boards_of_several_stores(store: Store, tmp_path: Path) -> None:
    other = Store(str(tmp_path / "other"))
    other.create()
    store.add_record(record("aaaaaaaa"), "0" * 12)
    other.add_record(record("bbbbbbbb"), "0" * 12)
    ended = weighin("board", "--store", store.url, "--store", other.url, "--format", "json")
    (tab,) = json.loads(ended.out)["tabs"]
    assert {row["id"]: row["store"] for row in tab["references"]} == {"aaaaaaaa": "store", "bbbbbbbb": "other"}


def test_the_view_is_rebuilt_on_request(mixed: Store) -> None:
    ended = weighin("view", "--store", mixed.url)
    assert (ended.code, ended.out.strip()) == (0, "wrote views/records.parquet: 2 cells of 1 rows")
    assert len(ended.err.splitlines()) == 3
    assert mixed.exists("views/records.parquet")


def test_the_records_schema_is_printed() -> None:
    printed = weighin("schema", "--record").out
    assert printed == files("results").joinpath("schema/record.v2.json").read_text(encoding="utf-8")
