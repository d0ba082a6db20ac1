"""Rows that are out of date, and rows that lost seeds: marked, and not ranked beside others."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from rich.console import Console

from results.badge import badge
from results.board import board
from results.json_view import dumps
from results.latex import latex
from results.load import read_record
from results.model import Row, Tab
from results.page import page
from results.page_data import board_data
from results.show import show
from results.stale import Present, parted
from results.table import as_csv, markdown, terminal

PPL = "wikitext2.word_ppl.v1"


def offered(*protocols: str) -> Present:
    return Present(protocols=frozenset(protocols), sweeps={"demo": "sweeps/demo.yaml"})


def by_version(sweep: Any, row: str, version: int, **more: Any) -> None:
    ppl, cola = sweep.measurements(row, more.get("quality", 0.1), 0, "sha256:wikitext2")
    ppl = ppl.model_copy(update={"protocol": f"wikitext2.word_ppl.v{version}"})
    sweep.add(row, more.pop("method", "low_rank"), measured=[ppl, cola], **more)


def rows_of(tab: Tab) -> dict[str, Row]:
    return {row.id: row for row in tab.rows}


def test_a_version_that_is_offered_no_more_is_stale_also_when_no_row_has_the_new_one(reader: Any, sweep: Any) -> None:
    by_version(sweep, "aaaaaaaa", 1)
    (row,) = board(reader, present=offered("wikitext2.word_ppl.v2", "glue.cola.v1")).tabs[0].rows
    assert row.stale.startswith("measured by wikitext2.word_ppl.v1, which wikitext2.word_ppl.v2 superseded; refresh: ")
    assert row.refresh == "weighin run sweeps/demo.yaml (with wikitext2.word_ppl.v2 in its tasks)"
    assert row.stale.endswith(row.refresh)


def test_versions_that_are_offered_side_by_side_are_both_current(reader: Any, sweep: Any) -> None:
    by_version(sweep, "aaaaaaaa", 1)
    by_version(sweep, "bbbbbbbb", 2, method="prune")
    found = board(reader, present=offered("wikitext2.word_ppl.v1", "wikitext2.word_ppl.v2", "glue.cola.v1"))
    assert [row.stale for row in found.tabs[0].rows] == ["", ""]


def test_without_knowing_what_is_offered_the_newest_version_on_the_board_decides(reader: Any, sweep: Any) -> None:
    by_version(sweep, "aaaaaaaa", 2, quality=0.1)
    by_version(sweep, "bbbbbbbb", 10, method="prune", quality=0.3)
    by_version(sweep, "cccccccc", 10, method="tq", quality=0.5)
    (tab,) = board(reader).tabs
    rows = rows_of(tab)
    assert {name for name, row in rows.items() if row.stale} == {"aaaaaaaa"}
    assert rows["aaaaaaaa"].refresh == "weighin run demo.yaml (with wikitext2.word_ppl.v10 in its tasks)"
    ppl = {column.key for column in tab.columns if column.protocol.startswith("wikitext2")}
    assert len(ppl) == 2
    ranks = {name: score.rank for name, row in rows.items() for key, score in row.scores.items() if key in ppl}
    assert ranks == {"aaaaaaaa": None, "bbbbbbbb": (1, 1), "cccccccc": (2, 2)}
    pairs = {frozenset((each.a, each.b)) for each in tab.comparisons if each.column in ppl}
    assert pairs == {frozenset(("bbbbbbbb", "cccccccc"))}


def test_a_protocol_from_a_newer_checkout_is_not_stale(reader: Any, sweep: Any) -> None:
    by_version(sweep, "aaaaaaaa", 3)
    assert board(reader, present=offered("wikitext2.word_ppl.v2", "glue.cola.v1")).tabs[0].rows[0].stale == ""


@pytest.mark.parametrize("old_first", [True, False])
def test_data_that_the_newest_row_no_longer_has_are_stale(reader: Any, sweep: Any, old_first: bool) -> None:
    old = {"row": "aaaaaaaa", "method": "low_rank", "data": "sha256:old", "created": "2026-01-01", "quality": 0.1}
    other = {**old, "row": "bbbbbbbb", "method": "prune", "created": "2026-01-02"}
    new = {"row": "cccccccc", "method": "tq", "data": "sha256:new", "created": "2026-01-03", "quality": 0.9}
    for each in (old, other, new) if old_first else (new, other, old):
        sweep.add(**each)
    (tab,) = board(reader).tabs
    rows = rows_of(tab)
    assert {name for name, row in rows.items() if row.stale} == {"aaaaaaaa", "bbbbbbbb"}
    assert (
        rows["aaaaaaaa"].stale
        == f"{PPL} on data sha256:old, a newer row has sha256:new; refresh: weighin run demo.yaml"
    )
    new_column = next(column.key for column in tab.columns if column.data == "sha256:new")
    assert rows["cccccccc"].scores[new_column].rank == (1, 1)
    assert not [each for each in tab.comparisons if each.column.startswith(PPL) and "cccccccc" in (each.a, each.b)]


def test_a_row_by_itself_is_as_stale_as_on_the_board(reader: Any, sweep: Any) -> None:
    sweep.add("aaaaaaaa", "low_rank", data="sha256:old", created="2026-01-01")
    sweep.add("bbbbbbbb", "prune", data="sha256:new", created="2026-01-02")
    by_version(sweep, "cccccccc", 0, method="tq", created="2026-01-03")
    present = offered("wikitext2.word_ppl.v1", "glue.cola.v1")
    rows = board(reader, present=present).tabs[0].rows
    assert sum(bool(row.stale) for row in rows) == 2
    assert {row.id: show(reader, row.id, present).row.stale for row in rows} == {row.id: row.stale for row in rows}


def test_another_teachers_data_and_a_text_of_ones_own_say_nothing(reader: Any, sweep: Any) -> None:
    first = sweep.add("aaaaaaaa", "low_rank", data="sha256:old", created="2026-01-01")
    other = first.cell.model_copy(update={"teacher": "smollm2"})
    sweep.add("bbbbbbbb", "low_rank", data="sha256:new", created="2026-01-02", cell=other)
    assert not any(row.stale for tab in board(reader).tabs for row in tab.rows)
    reader.clear()
    for row, data in (("aaaaaaaa", "sha256:letters"), ("bbbbbbbb", "sha256:mails")):
        ppl = sweep.measurements(row, 0.1, 0, data)[0].model_copy(update={"protocol": "local.token_ppl.v1"})
        sweep.add(row, "low_rank", measured=[ppl])
    assert not any(row.stale for row in board(reader).tabs[0].rows)


def test_a_record_of_an_older_schema_is_read_and_marked(reader: Any, sweep: Any) -> None:
    new = sweep.add("aaaaaaaa", "low_rank", speed=None)
    reader.clear()
    reader.add(read_record({**new.model_dump(mode="json"), "schema_version": 1}, "records/x.json"))
    (row,) = board(reader).tabs[0].rows
    assert row.stale == "recorded by an older weighin (schema 1); refresh: weighin run demo.yaml"
    assert row.scores
    assert all((score.rank, score.tied, score.pareto) == (None, (), False) for score in row.scores.values())


def test_a_stale_row_that_is_best_leads_in_no_form(reader: Any, sweep: Any) -> None:
    old = sweep.add("aaaaaaaa", "low_rank", quality=0.1, speed=None)
    reader.clear()
    reader.add(read_record({**old.model_dump(mode="json"), "schema_version": 1}, "records/x.json"))
    sweep.add("bbbbbbbb", "prune", quality=0.9)
    sweep.add("cccccccc", "tq", quality=1.5)
    found = board(reader)
    (tab,) = found.tabs
    key = tab.columns[0].key
    first, second, last = tab.groups[0].rows
    assert (first.id, second.id, last.id) == ("bbbbbbbb", "cccccccc", "aaaaaaaa")
    assert last.stale
    assert last.scores[key].summary.value < first.scores[key].summary.value
    assert (last.scores[key].rank, last.scores[key].tied, last.scores[key].pareto) == (None, (), False)
    assert first.scores[key].rank == (1, 1)
    assert first.scores[key].pareto
    assert not [each for each in tab.comparisons if "aaaaaaaa" in (each.a, each.b)]
    assert "low\\_rank" not in badge(found)
    (line,) = (line for line in latex(found).splitlines() if "(stale)" in line)
    assert not any(mark in line for mark in ("textbf", "lozenge", r"\#"))
    told = {row["id"]: row for row in board_data(found)["tabs"][0]["rows"]}["aaaaaaaa"]
    assert not any({"rank", "r", "front", "tied"} & score.keys() for score in told["scores"].values())
    by_id = {each["row"]: each for each in csv.DictReader(io.StringIO(as_csv(found)))}
    marks = {name: item for name, item in by_id["aaaaaaaa"].items() if name.endswith(("rank_best", "rank_worst"))}
    assert set(marks.values()) == {""}
    for text in (printed(found), markdown(found)):
        (line,) = (each for each in text.splitlines() if "aaaaaaaa" in each)
        assert "#" not in line
        assert "◆" not in line


@pytest.mark.parametrize("evil", [[1], {"a": 1}, None, 10**400, "x" * 9000])
def test_any_provenance_is_read(reader: Any, sweep: Any, evil: Any) -> None:
    provenance = {"migrated_from": evil, "created_at": evil, "vocabulary": evil}
    sweep.add("aaaaaaaa", "low_rank", provenance=provenance)
    sweep.add("00000000", "identity", budget=None, recipe="none", provenance=provenance)
    (tab,) = board(reader).tabs
    assert all(row.stale.startswith("recorded by an older weighin (schema ") for row in tab.rows)
    assert all(len(row.stale) < 200 for row in tab.rows)


def test_lm_evals_version_is_part_of_the_version() -> None:
    names = ["lm_eval.x.0shot.v1.0+0.4.10", "lm_eval.x.0shot.v1+0.4.9", "lm_eval.x.0shot.v1+0.4.10", "x.y"]
    assert parted(names[1]) < parted(names[2])
    assert parted(names[1]) == ("lm_eval.x.0shot", (1, 0, 4, 9))
    assert parted(names[3]) == ("x.y", ())


def printed(found: Any) -> str:
    console = Console(width=250, file=io.StringIO(), color_system=None)
    console.print(terminal(found))
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_every_form_marks_a_stale_row(reader: Any, sweep: Any) -> None:
    by_version(sweep, "aaaaaaaa", 1)
    by_version(sweep, "bbbbbbbb", 2, method="prune")
    found = board(reader)
    for text in (printed(found), markdown(found).replace("\\_", "_")):
        assert "stale: measured by wikitext2.word_ppl.v1" in text
        assert "weighin run demo.yaml" in text
    lines = {line["row"]: line for line in csv.DictReader(io.StringIO(as_csv(found)))}
    assert lines["aaaaaaaa"]["stale"].startswith("measured by")
    assert lines["aaaaaaaa"]["refresh"].startswith("weighin run demo.yaml")
    assert (lines["bbbbbbbb"]["stale"], lines["bbbbbbbb"]["refresh"]) == ("", "")
    (tab,) = json.loads(dumps(found))["tabs"]
    rows = {row["id"]: row for group in tab["groups"] for row in group["rows"]}
    assert rows["aaaaaaaa"]["refresh"].startswith("weighin run demo.yaml")
    assert rows["bbbbbbbb"]["stale"] == ""


def test_seven_of_ten_seeds_are_shown_and_not_ranked(reader: Any, sweep: Any) -> None:
    for seed in range(10):
        failed = {"status": "failed", "reason": "diverged"} if seed in (2, 5, 8) else {}
        sweep.add("aaaaaaaa", "low_rank", seed=seed, quality=0.1, **failed)
    for seed in range(10):
        sweep.add("bbbbbbbb", "prune", seed=seed, quality=1.0)
        sweep.add("cccccccc", "tq", seed=seed, quality=1.5)
    found = board(reader)
    rows = rows_of(found.tabs[0])
    lost = rows["aaaaaaaa"]
    assert (lost.status, lost.num_complete, len(lost.seeds)) == ("failed", 7, 10)
    assert lost.reason == "seed 2, 5, 8: diverged"
    assert all((score.rank, score.tied, score.pareto) == (None, (), False) for score in lost.scores.values())
    assert all(score.summary.seeds == 7 for score in lost.scores.values())
    ppl = found.tabs[0].columns[0].key
    assert (rows["bbbbbbbb"].scores[ppl].rank, rows["cccccccc"].scores[ppl].rank) == ((1, 1), (2, 2))
    assert not any("aaaaaaaa" in (each.a, each.b) for each in found.tabs[0].comparisons)
    assert " 7/10 " in printed(found)
    assert "| 7/10 |" in markdown(found)
    assert "7/10" in page(found)
    line = next(line for line in csv.DictReader(io.StringIO(as_csv(found))) if line["row"] == "aaaaaaaa")
    assert (line["seeds"], line["seeds_complete"], line["status"]) == ("10", "7", "failed")
