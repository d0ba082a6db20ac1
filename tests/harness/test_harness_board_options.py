"""`weighin board --since`, `weighin reported`, and stale rows, through the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from micro_sweep import weighin

from results.record import Cell, Measured, Record, SizeCard
from results.store import Store


@pytest.fixture
def add(tmp_path: Path) -> Callable[..., None]:
    """Writes a row of a teacher called gpt2 into a store."""
    store = Store(str(tmp_path / "store"))
    store.create()

    def write(row: str, method: str, ppl: float, created: str, *, protocol: str = "wikitext2v1.window_ppl.v1") -> None:
        measured = Measured(
            protocol=protocol, metric="window_ppl", value=ppl, unit="ppl", higher_is_better=False, main=True,
            data="sha256:d", stage_key="e" * 24,
        )  # fmt: skip
        size = SizeCard(
            params=81_972_600, params_fraction=0.659, params_without_embedding=43_375_224, stored_bytes=327_890_400,
            params_without_output=81_972_600, materialised_bytes=497_759_232, macs_per_token=81_000_000,
        )  # fmt: skip
        cell = Cell(teacher="gpt2", method=method, budget="params=0.66", recipe="shared", recipe_digest="d" * 8, seed=0)
        record = Record(
            row=row, sweep="wikitext2", cell=cell, status="complete", measured=[measured], size=size,
            provenance={"created_at": created},
        )  # fmt: skip
        store.add_record(record, f"{row}{created[:10]}")

    return write


def board(tmp_path: Path, *options: object) -> Any:
    ended = weighin("board", "--store", tmp_path / "store", "--format", "json", *options)
    assert ended.code == 0, ended.err
    return ended.data


def test_since_a_kept_board_and_since_a_day_say_the_same(add: Any, tmp_path: Path) -> None:
    add("aaaaaaaa", "kronecker", 36.0, "2026-01-01T00:00:00Z")
    kept = tmp_path / "old.json"
    assert weighin("board", "--store", tmp_path / "store", "--format", "json", "-o", kept).code == 0
    add("bbbbbbbb", "svd", 40.0, "2026-01-02T00:00:00Z")
    add("aaaaaaaa", "kronecker", 35.0, "2026-01-03T00:00:00Z")
    by_file, by_day = (board(tmp_path, "--since", since)["changes"] for since in (kept, "2026-01-02"))
    assert by_file["found"] == by_day["found"]
    assert [(each["kind"], each["row"], each["old"], each["new"]) for each in by_day["found"]] == [
        ("new row", "bbbbbbbb", None, "complete"),
        ("value", "aaaaaaaa", 36.0, pytest.approx(35.0)),
        ("rank", "aaaaaaaa", [1, 1], [1, 2]),
    ]
    table = weighin("board", "--store", tmp_path / "store", "--since", kept).out
    assert "value: aaaaaaaa kronecker, wikitext2v1.window_ppl.v1 window_ppl 36 → 35, better" in table


@pytest.mark.parametrize("since", ["yesterday", "2026-13-45", "no/such/file.json", "20260101"])
def test_since_neither_a_file_nor_a_date(add: Any, tmp_path: Path, since: str) -> None:
    add("aaaaaaaa", "svd", 36.0, "2026-01-01T00:00:00Z")
    ended = weighin("board", "--store", tmp_path / "store", "--since", since)
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert f"--since {since}: neither a date" in ended.err


def test_since_a_file_that_is_no_board(add: Any, tmp_path: Path) -> None:
    add("aaaaaaaa", "svd", 36.0, "2026-01-01T00:00:00Z")
    (tmp_path / "x.json").write_text('{"format": 1}')
    ended = weighin("board", "--store", tmp_path / "store", "--since", tmp_path / "x.json")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "not a board" in ended.err


def test_a_protocol_that_is_no_longer_offered_makes_a_row_stale(add: Any, tmp_path: Path) -> None:
    add("aaaaaaaa", "svd", 36.0, "2026-01-01T00:00:00Z")
    add("bbbbbbbb", "svd", 36.0, "2026-01-01T00:00:00Z", protocol="wikitext2v1.window_ppl.v0")
    (tab,) = board(tmp_path)["tabs"]
    rows = {row["id"]: row for group in tab["groups"] for row in group["rows"]}
    assert rows["aaaaaaaa"]["stale"] == ""
    command = "weighin run sweeps/wikitext2.yaml (with wikitext2v1.window_ppl.v1 in its tasks)"
    assert rows["bbbbbbbb"]["refresh"] == command


def test_reported_lists_everything_or_one_method(add: Any, tmp_path: Path) -> None:
    everything = weighin("reported", "--json").data
    assert len(everything) > 200
    tq = weighin("reported", "--method", "tq", "--json").data
    assert {each["method"] for each in tq} == {"tq"}
    assert {(each["value"], each["match"]) for each in tq} >= {(40.28, "same"), (40.611, "unknown")}
    assert "81,336,388" in weighin("reported", "--method", "tq").out
    ended = weighin("reported", "--method", "tqq")
    assert (ended.code, ended.err) == (2, "error: --method tqq: nothing was reported of it; did you mean 'tq'?\n")


def test_a_board_has_the_papers_numbers_beside_its_own(add: Any, tmp_path: Path) -> None:
    add("aaaaaaaa", "kronecker", 36.0, "2026-01-01T00:00:00Z")
    (tab,) = board(tmp_path)["tabs"]
    (found,) = [
        each
        for each in tab["reported"]
        if each["model"] == "KronyPT-81M" and each["measured"] and "Tables" in each["citation"]
    ]
    assert (found["value"], found["match"], found["protocol"]) == (35.75, "same", "wikitext2v1.window_ppl.v1")
    (beside,) = found["measured"]
    assert (beside["row"], beside["value"], beside["same_size"]) == ("aaaaaaaa", pytest.approx(36.0), True)


def test_show_names_the_rule_of_each_count(add: Any, tmp_path: Path) -> None:
    add("aaaaaaaa", "kronecker", 36.0, "2026-01-01T00:00:00Z")
    shown = weighin("show", "aaaaaaaa", "--store", tmp_path / "store").out
    assert "81,972,600 (0.6590 of the teacher)  unique: " in shown
    assert "printed 81M: 81,972,576, scalars of terms folded into their factors" in shown
    data = weighin("show", "aaaaaaaa", "--store", tmp_path / "store", "--json").data
    assert data["size_rules"]["params_without_output"]["rule"] == "without_output_matrix"
