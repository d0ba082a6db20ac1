"""Several stores on one board."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from results.board import board
from results.json_view import dumps
from results.record import Record
from results.store import Store
from results.stores import Stores, open_stores
from results.table import as_csv, markdown


@pytest.fixture
def a(tmp_path: Path) -> Store:
    return made(tmp_path / "team-a")


@pytest.fixture
def b(tmp_path: Path) -> Store:
    return made(tmp_path / "team-b")


def made(directory: Path) -> Store:
    store = Store(str(directory))
    store.create()
    return store


def put(store: Store, sweep: Any, *records: Record) -> None:
    """With the items that they point to."""
    for number, record in enumerate(records):
        assert store.add_record(record, f"{number:012x}")
        for measured in record.measured:
            store.write(measured.items_path, sweep.reader.files[measured.items_path])


def rows(stores: Any) -> dict[str, Any]:
    return {row.id: row for tab in board(stores).tabs for row in tab.rows}


def both(a: Store, b: Store) -> Stores:
    found = open_stores([a.url, b.url])
    assert isinstance(found, Stores)
    return found


def test_rows_of_both_say_where_they_are_from(a: Store, b: Store, sweep: Any) -> None:
    put(a, sweep, sweep.add("aaaaaaaa", "low_rank", seed=0), sweep.add("cccccccc", "prune", seed=0))
    put(b, sweep, sweep.add("bbbbbbbb", "kronecker", seed=0), sweep.add("cccccccc", "prune", seed=1))
    found = board(both(a, b))
    named = {row.id: row.store for tab in found.tabs for row in tab.rows}
    assert named == {"aaaaaaaa": "team-a", "bbbbbbbb": "team-b", "cccccccc": "team-a, team-b"}
    assert "cccccccc team-a, team-b" in markdown(found)
    assert ",bbbbbbbb,team-b," in as_csv(found)
    (group,) = json.loads(dumps(found))["tabs"][0]["groups"]
    assert {row["id"]: row["store"] for row in group["rows"]} == named
    assert {score.summary.basis for row in rows(both(a, b)).values() for score in row.scores.values()} == {
        "items only", "seeds and items"
    }  # fmt: skip
    assert not any(tab.notes for tab in found.tabs)
    assert {row.store for row in rows(a).values()} == {""}


def test_one_store_named_twice_is_one(a: Store) -> None:
    assert isinstance(open_stores([a.url, a.url]), Store)
    assert isinstance(open_stores(a.url), Store)


def test_of_one_cell_the_newest_complete_counts_wherever_it_is(a: Store, b: Store, sweep: Any) -> None:
    old = sweep.add("aaaaaaaa", "low_rank", created="2026-01-01", quality=0.3)
    new = sweep.add("aaaaaaaa", "low_rank", created="2026-01-02", quality=0.3, sweep="again")
    lost = sweep.add("aaaaaaaa", "low_rank", created="2026-01-03", status="failed", reason="node lost")
    put(a, sweep, new)
    put(b, sweep, old, lost)
    assert [row.store for row in rows(both(a, b)).values()] == ["team-a"]
    assert [row.store for row in rows(both(b, a)).values()] == ["team-a"]


def test_copies_collapse_in_silence(a: Store, b: Store, sweep: Any) -> None:
    records = [sweep.add("aaaaaaaa", "low_rank", seed=seed) for seed in (0, 1)]
    put(a, sweep, *records)
    put(b, sweep, *records)
    found = board(both(a, b))
    assert [len(row.seeds) for tab in found.tabs for row in tab.rows] == [2]
    assert not found.notes
    values = [score.summary for row in rows(a).values() for score in row.scores.values()]
    assert [score.summary for row in rows(both(a, b)).values() for score in row.scores.values()] == values


@pytest.mark.parametrize(("factor", "differs"), [(1 + 1e-7, False), (1.01, True), (math.nan, True)])
def test_stores_that_disagree_are_named(a: Store, b: Store, sweep: Any, factor: float, differs: bool) -> None:
    record = sweep.add("aaaaaaaa", "low_rank", seed=3)
    ppl, cola = record.measured
    other = ppl.model_copy(update={"value": ppl.value * factor})
    put(a, sweep, record)
    put(b, sweep, record.model_copy(update={"measured": [other, cola]}))
    notes = [note for note in board(both(a, b)).notes if "team-a" in note]
    told = f"row aaaaaaaa#3: {ppl.protocol} {ppl.metric} of one stage is {ppl.value!r} in store team-a, {other.value!r}"
    assert [note.startswith(told) for note in notes] == [True] * differs


def test_items_are_read_from_the_records_own_store(a: Store, b: Store, sweep: Any) -> None:
    mine = sweep.add("aaaaaaaa", "low_rank")
    theirs = sweep.add("bbbbbbbb", "prune", quality=0.4)
    paths = {m.protocol: m.items_path for m in mine.measured}
    same_paths = [m.model_copy(update={"items_path": paths[m.protocol]}) for m in theirs.measured]
    put(a, sweep, mine)
    assert b.add_record(theirs.model_copy(update={"measured": same_paths}), "d" * 12)
    for measured in theirs.measured:
        b.write(paths[measured.protocol], sweep.reader.files[measured.items_path])
    for stores in (both(a, b), both(b, a)):
        assert {s.summary.basis for row in rows(stores).values() for s in row.scores.values()} == {"items only"}
        assert not any("damaged" in note for tab in board(stores).tabs for note in tab.notes)


def test_an_empty_store_among_others_is_named(a: Store, tmp_path: Path, sweep: Any) -> None:
    put(a, sweep, sweep.add("aaaaaaaa", "low_rank"))
    found = board(open_stores([a.url, str(tmp_path / "typo")]))
    assert found.notes == ("store typo has no records",)
    assert "No results yet" in board(open_stores([str(tmp_path / "x"), str(tmp_path / "y")])).message


def test_stores_of_one_name_are_told_apart_without_their_passwords(tmp_path: Path) -> None:
    named = Stores([Store(str(tmp_path / "x" / "store")), Store("memory://user:secret@host/store")]).stores
    assert list(named) == [str(tmp_path / "x" / "store"), "memory://host/store"]
