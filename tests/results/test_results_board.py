"""What stands on the board, and what never stands together."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from results.board import board
from results.errors import StoreError
from results.load import choose, read_record
from results.record import SCHEMA, Measured, StageCost


def test_newest_complete_wins_over_a_later_failure_and_failure_shows_alone(reader: Any, sweep: Any) -> None:
    sweep.add("aaaaaaaa", "low_rank", created="2026-01-01", quality=0.1)
    wanted = sweep.add("aaaaaaaa", "low_rank", created="2026-01-02", quality=0.2)
    sweep.add("aaaaaaaa", "low_rank", created="2026-01-03", status="failed", reason="node lost")
    alone = sweep.add("bbbbbbbb", "prune", status="failed", reason="node lost")
    assert choose(reader.records()) == [wanted, alone]
    assert choose(reversed(reader.records())) == [wanted, alone]
    assert choose(reader.records(), "other") == []


def test_reading_migrates_old_records_and_refuses_newer_ones(sweep: Any) -> None:
    data = sweep.add("aaaaaaaa", "low_rank").model_dump(mode="json")
    old = {**data, "schema_version": SCHEMA - 1, "title": data["row"]}
    del old["row"]

    def rename(record: dict[str, Any]) -> dict[str, Any]:
        return {**{k: v for k, v in record.items() if k != "title"}, "row": record["title"]}

    read = read_record(old, "records/x.json", {SCHEMA - 1: rename}).model_dump(mode="json")
    assert read == {**data, "provenance": {**data["provenance"], "migrated_from": SCHEMA - 1}}
    with pytest.raises(StoreError, match=r"records/x.json.*newer weighin"):
        read_record({**data, "schema_version": SCHEMA + 1}, "records/x.json")
    with pytest.raises(StoreError, match="too old"):
        read_record(old, "records/x.json", {})
    with pytest.raises(StoreError, match=r"records/x\.json: status"):
        read_record({**data, "status": "fine"}, "records/x.json")
    with pytest.raises(StoreError, match="not a record"):
        read_record([], "records/x.json")


def test_a_newer_record_from_any_reader_is_refused(reader: Any, sweep: Any) -> None:
    sweep.add("aaaaaaaa", "low_rank", schema_version=SCHEMA + 1)
    with pytest.raises(StoreError, match="newer weighin"):
        board(reader)


def test_an_empty_board_says_what_to_run(reader: Any, finished: Any, new_reader: Callable[..., Any]) -> None:
    assert "weighin run" in board(new_reader()).message
    assert "did you mean 'demo'" in board(finished, "dmo").message
    assert board(finished, "demo").message == ""


def test_tabs_references_and_groups(finished: Any) -> None:
    tabs = board(finished).tabs
    assert [tab.budget for tab in tabs] == ["params=0.66", "params=0.33"]
    assert all([row.method for row in tab.references] == ["identity"] for tab in tabs)
    assert [[row.method for row in group.rows] for group in tabs[0].groups] == [
        ["low_rank", "kronecker", "prune", "drop_layers", "tensor_train"],
        ["low_rank"],
    ]
    failed = next(row for row in tabs[0].rows if row.method == "tensor_train")
    assert (failed.status, failed.reason) == ("failed", "loss is not finite at step 17")


def test_close_rows_tie_and_distant_rows_do_not(finished: Any) -> None:
    tab = board(finished).tabs[0]
    ppl = tab.columns[0].key
    ranks = {row.id: row.scores[ppl].rank for row in tab.rows if row.scores}
    assert ranks == {"00000000": None, "00aaaaaa": (1, 2), "01aaaaaa": (1, 2), "02aaaaaa": (3, 3), "20aaaaaa": (1, 1)}
    assert next(r for r in tab.rows if r.id == "00aaaaaa").scores[ppl].tied == ("01aaaaaa",)
    groups = {row.id: group.recipe for group in tab.groups for row in group.rows}
    assert all(groups[c.a] == groups[c.b] for c in tab.comparisons)
    assert all(c.p_holm >= c.p_value for c in tab.comparisons if c.p_holm is not None and c.p_value is not None)


def test_shared_recipes_that_differ_are_separate_groups(reader: Any, sweep: Any) -> None:
    first = sweep.add("aaaaaaaa", "low_rank")
    sweep.add("bbbbbbbb", "prune", cell=first.cell.model_copy(update={"method": "prune", "recipe_digest": "e" * 8}))
    assert [group.recipe for group in board(reader).tabs[0].groups] == ["shared dddddddd", "shared eeeeeeee"]


def test_other_data_or_protocol_versions_never_share_a_column(reader: Any, sweep: Any) -> None:
    sweep.add("aaaaaaaa", "low_rank")
    sweep.add("bbbbbbbb", "prune", data="sha256:other")
    (tab,) = board(reader).tabs
    ppl = [column for column in tab.columns if column.metric == "word_perplexity"]
    assert len(ppl) == 2
    rows = {row.id: row for row in tab.rows}
    for column in ppl:
        assert sum(column.key in row.scores for row in rows.values()) == 1
    ranks = {id: {each.scores[c.key].rank for c in ppl if c.key in each.scores} for id, each in rows.items()}
    # Of two revisions of the data one is the newer; who was measured on the other is out of date, and not ranked.
    assert rows["aaaaaaaa"].stale
    assert (ranks["aaaaaaaa"], ranks["bbbbbbbb"]) == ({None}, {(1, 1)})


def test_a_row_that_lost_a_seed_is_shown_but_not_ranked(reader: Any, sweep: Any) -> None:
    sweep.add("aaaaaaaa", "low_rank", seed=0)
    sweep.add("aaaaaaaa", "low_rank", seed=1, status="failed", reason="diverged")
    sweep.add("bbbbbbbb", "prune", quality=1.0)
    rows = {row.id: row for row in board(reader).tabs[0].rows}
    assert (rows["aaaaaaaa"].status, rows["aaaaaaaa"].reason) == ("failed", "seed 1: diverged")
    assert all(score.rank is None and not score.pareto for score in rows["aaaaaaaa"].scores.values())
    assert rows["aaaaaaaa"].scores
    assert all(score.rank == (1, 1) for score in rows["bbbbbbbb"].scores.values())


def test_missing_or_damaged_items_leave_a_value_and_a_note(reader: Any, sweep: Any) -> None:
    record = sweep.add("aaaaaaaa", "low_rank")
    gone, damaged = (measured.items_path for measured in record.measured)
    del reader.files[gone]
    reader.files[damaged] += b"x"
    scores = [s.summary for s in board(reader).tabs[0].rows[0].scores.values()]
    assert [(s.basis, s.note) for s in scores] == [
        ("no interval", "items file is gone"),
        ("no interval", "items file is damaged"),
    ]
    notes = " | ".join(board(reader).tabs[0].notes)
    for problem, measured in zip(("gone", "damaged"), record.measured, strict=True):
        assert f"items file is {problem}, intervals without items: low_rank (aaaaaaaa) {measured.protocol}" in notes


def test_a_file_that_is_not_parquet_counts_as_damaged(reader: Any, sweep: Any) -> None:
    measured = sweep.measurements("aaaaaaaa", 0.1, 0, "sha256:x")[0].model_copy(update={"items_sha256": None})
    sweep.add("aaaaaaaa", "low_rank", measured=[measured])
    reader.files[measured.items_path] = b"not parquet"
    (score,) = board(reader).tabs[0].rows[0].scores.values()
    assert score.summary.note == "items file is damaged"


def test_items_that_tell_another_value_are_not_used(reader: Any, sweep: Any) -> None:
    record = sweep.measurements("aaaaaaaa", 0.1, 0, "sha256:x")[0]
    sweep.add("aaaaaaaa", "low_rank", measured=[record.model_copy(update={"value": record.value * 1.01})])
    (score,) = board(reader).tabs[0].rows[0].scores.values()
    assert (score.summary.basis, score.summary.note) == ("no interval", "items do not reproduce the value")


def test_shared_stages_are_split_and_nothing_is_lost(finished: Any) -> None:
    rows = {row.id: row for tab in board(finished).tabs for row in tab.rows}
    spent = {(c.stage, c.key): c.worker_s for record in finished.records() for c in record.costs}
    assert sum(row.cost.worker_s for row in rows.values()) == pytest.approx(sum(spent.values()))
    num_cells = len(finished.records())
    assert rows["00aaaaaa"].cost.worker_s_by_stage["teacher"] == pytest.approx(2 * 600 / num_cells)


def test_a_stage_named_twice_in_a_record_has_one_user(reader: Any, sweep: Any) -> None:
    cost = StageCost(stage="evaluate", key="k", worker_s=10)
    sweep.add("aaaaaaaa", "low_rank", costs=[cost])
    sweep.add("bbbbbbbb", "prune", costs=[cost])
    assert [row.cost.worker_s for row in board(reader).tabs[0].rows] == [5, 5]


def test_the_front_holds_what_nothing_smaller_beats(reader: Any, sweep: Any) -> None:
    sweep.add("aaaaaaaa", "low_rank", quality=0.3)
    sweep.add("bbbbbbbb", "prune", quality=0.6)
    sweep.add("cccccccc", "low_rank", quality=0.9, budget="params=0.33")
    sweep.add("dddddddd", "prune", quality=1.2, budget="params=0.33")
    found = board(reader)
    ppl = found.tabs[0].columns[0].key
    assert {row.id for tab in found.tabs for row in tab.rows if row.scores[ppl].pareto} == {"aaaaaaaa", "cccccccc"}


def test_before_training_stands_beside_the_final_value(reader: Any, sweep: Any) -> None:
    record = sweep.add("bbbbbbbb", "prune")
    early = [m.model_copy(update={"when": "before_training", "value": 900.0, "items_path": None})
             for m in record.measured[:1]]  # fmt: skip
    sweep.add("aaaaaaaa", "low_rank", measured=[*record.measured, *early])
    (tab,) = board(reader).tabs
    scores = next(row for row in tab.rows if row.id == "aaaaaaaa").scores
    before = scores[tab.columns[0].key].before
    assert before is not None
    assert before.value == pytest.approx(900)
    assert len(tab.columns) == 2


def test_an_infinite_perplexity_is_neither_ranked_nor_fatal(reader: Any, sweep: Any) -> None:
    measured = Measured(
        protocol="p.v1", metric="word_perplexity", value=float("inf"), unit="ppl", higher_is_better=False, main=True,
        data="x", stage_key="k",
    )  # fmt: skip
    sweep.add("aaaaaaaa", "low_rank", measured=[measured])
    (score,) = board(reader).tabs[0].rows[0].scores.values()
    assert (score.rank, score.summary.low) == (None, None)


def test_different_builds_of_a_teacher_are_noted(reader: Any, sweep: Any) -> None:
    sweep.add("aaaaaaaa", "low_rank")
    sweep.add("bbbbbbbb", "prune", stages={"teacher": "u" * 64})
    assert "2 different builds" in board(reader).tabs[0].notes[0]


def test_of_two_cells_under_one_row_id_the_one_with_more_records_counts(reader: Any, sweep: Any) -> None:
    sweep.add("aaaaaaaa", "prune", seed=1, created="2025")
    for seed in (0, 2):
        sweep.add("aaaaaaaa", "low_rank", seed=seed)
    found = board(reader)
    (row,) = (row for tab in found.tabs for row in tab.rows)
    assert (row.method, [seed.seed for seed in row.seeds]) == ("low_rank", [0, 2])
    assert [str(each) for each in found.rejected] == [
        "record aaaaaaaa#1: describes another cell than the other records of this row"
    ]
    assert any("record aaaaaaaa#1" in note for note in found.tabs[0].notes)


def test_of_two_cells_with_as_many_records_the_older_counts(reader: Any, sweep: Any) -> None:
    sweep.add("aaaaaaaa", "prune", seed=1, created="2026-02")
    sweep.add("aaaaaaaa", "low_rank", seed=0, created="2026-01")
    assert [row.method for tab in board(reader).tabs for row in tab.rows] == ["low_rank"]


def test_the_board_does_not_depend_on_the_order_of_listing(finished: Any, new_reader: Callable[..., Any]) -> None:
    assert board(new_reader(finished.records()[::-1], finished.files)) == board(finished)


def test_importing_the_board_loads_nothing_heavy() -> None:
    code = (
        "import sys, results.board, results.table, results.json_view, results.page, results.show\n"
        "print([m for m in ('torch', 'pandas', 'scipy', 'plotly', 'pyarrow', 'rich') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"
