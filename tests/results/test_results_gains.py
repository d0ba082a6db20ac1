"""What a row gains over its controls: formula, direction, correction, and what is shown of one without a result."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from results.board import board
from results.load import read_record
from results.model import Gain, Tab
from results.page import page
from results.page_data import board_data
from results.record import Control
from results.show import show
from results.statistics import holm
from results.table import as_csv, markdown, terminal


def add_twin(sweep: Any, row: str, kind: str, quality: float, **options: Any) -> str:
    """A control of an existing row; returns its id."""
    name = f"{row[:2]}{kind[:6]:_<6}"
    cell = next(r.cell for r in sweep.reader.records() if r.row == row)
    seed = options.get("seed", 0)
    changed = cell.model_copy(update={"seed": seed, "control": Control(kind=kind, of=row)})  # type: ignore[arg-type]
    sweep.add(name, cell.method, quality=quality, cell=changed, **options)
    return name


def items(sweep: Any, row: str, kind: str) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.read_table(io.BytesIO(sweep.reader.files[f"{row}-0-{kind}"]))


def gains(tab: Tab, twin: str) -> list[Gain]:
    (found,) = (each for each in tab.twins if each.row.id == twin)
    return [found.gains[column.key] for column in tab.columns if column.key in found.gains]


def test_a_perplexity_s_gain_is_the_log_of_the_ratio_paired_on_items(reader: Any, sweep: Any) -> None:
    sweep.add("aaaaaaaa", "low_rank", quality=0.30)
    twin = add_twin(sweep, "aaaaaaaa", "random_init", 0.35)
    (tab,) = board(reader).tabs
    gain = gains(tab, twin)[0]
    ours, theirs = (items(sweep, name, "ppl") for name in ("aaaaaaaa", twin))
    words = ours["words"].to_numpy()
    d, t = [], []
    for table in (theirs, ours):
        nll = table["nll"].to_numpy()
        t.append(nll.sum() / words.sum())
        d.append((nll - t[-1] * words) / words.mean())
    n, difference = len(words), d[0] - d[1]
    half = stats.t.ppf(0.975, n - 1) * np.sqrt((difference**2).sum() / (n * (n - 1)))
    assert gain.value == pytest.approx(t[0] - t[1], rel=1e-9)
    assert (gain.low, gain.high) == pytest.approx((gain.value - half, gain.value + half), rel=1e-9)
    assert (gain.basis, gain.value > 0) == ("items only", True)


def test_positive_is_better_whichever_way_a_metric_points(reader: Any, sweep: Any) -> None:
    sweep.add("aaaaaaaa", "low_rank", quality=0.2)
    worse = add_twin(sweep, "aaaaaaaa", "no_teacher", 0.8)
    better = add_twin(sweep, "aaaaaaaa", "random_init", 0.0)
    (tab,) = board(reader).tabs
    assert [gain.value > 0 for gain in gains(tab, worse)] == [True, True]
    assert [gain.value > 0 for gain in gains(tab, better)] == [False, False]
    assert [column.higher_is_better for column in tab.columns] == [False, True]
    matthews = [tab.twins[0].row.scores[tab.columns[1].key], tab.rows[0].scores[tab.columns[1].key]]
    assert gains(tab, worse)[1].value == pytest.approx(matthews[1].summary.value - matthews[0].summary.value)


def test_p_values_are_corrected_over_the_gains_of_a_column(reader: Any, sweep: Any) -> None:
    for number, row in enumerate(("aaaaaaaa", "bbbbbbbb", "cccccccc")):
        sweep.add(row, "low_rank", fields={"layers": str(number)}, quality=0.30)
        add_twin(sweep, row, "random_init", 0.30 + 0.002 * number)
    (tab,) = board(reader).tabs
    for column in tab.columns:
        found = [twin.gains[column.key] for twin in tab.twins]
        assert [gain.p_holm for gain in found] == holm([gain.p_value for gain in found if gain.p_value is not None])


def test_a_gain_of_a_stale_row_is_shown_and_not_tested(reader: Any, sweep: Any) -> None:
    sweep.add("aaaaaaaa", "low_rank", quality=0.30, data="sha256:old", created="2026-01-01")
    add_twin(sweep, "aaaaaaaa", "random_init", 0.90, data="sha256:old", created="2026-01-01")
    sweep.add("bbbbbbbb", "prune", quality=0.30, data="sha256:new", created="2026-01-02")
    add_twin(sweep, "bbbbbbbb", "random_init", 0.90, data="sha256:new", created="2026-01-02")
    (tab,) = board(reader).tabs
    tested = {(twin.control.of, gain.p_holm is not None) for twin in tab.twins for gain in twin.gains.values()}
    assert tested == {("aaaaaaaa", False), ("bbbbbbbb", True)}


def test_controls_change_no_rank_no_front_and_no_other_column(finished: Any, sweep: Any) -> None:
    before = board(finished)
    for seed in (0, 1):
        add_twin(sweep, "00aaaaaa", "no_teacher", 0.0, seed=seed)
    after = board(finished)
    for old, new in zip(before.tabs, after.tabs, strict=True):
        assert [row.scores for row in new.rows] == [row.scores for row in old.rows]
        assert (new.columns, new.comparisons, new.notes) == (old.columns, old.comparisons, old.notes)
    assert [len(tab.twins) for tab in after.tabs] == [1, 0]
    assert after.tabs[0].twins[0].row.scores[after.tabs[0].columns[0].key].rank is None
    spent = {(c.stage, c.key): c.worker_s for record in finished.records() for c in record.costs}
    rows = {row.id: row for tab in after.tabs for row in [*tab.rows, *(twin.row for twin in tab.twins)]}
    assert sum(row.cost.worker_s for row in rows.values()) == pytest.approx(sum(spent.values()))


def test_a_row_or_a_control_that_lost_a_seed_has_no_gain(reader: Any, sweep: Any) -> None:
    for seed in (0, 1):
        sweep.add("aaaaaaaa", "low_rank", seed=seed)
    add_twin(sweep, "aaaaaaaa", "no_teacher", 0.3)
    twin = add_twin(sweep, "aaaaaaaa", "no_teacher", 0.3, seed=1, status="failed", reason="diverged at step 3")
    (tab,) = board(reader).tabs
    assert gains(tab, twin) == []
    for text in (printed(terminal(board(reader))), markdown(board(reader)), page(board(reader)), as_csv(board(reader))):
        assert "diverged at step 3" in text.replace("\\", "")
    assert "failed" in printed(terminal(board(reader)))


def printed(renderable: Any) -> str:
    console = Console(width=200, file=io.StringIO(), color_system=None)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_without_controls_nothing_is_said_of_them(finished: Any) -> None:
    found = board(finished)
    for text in (printed(terminal(found)), markdown(found), as_csv(found)):
        assert "gain" not in text.lower().replace("against", "")
    assert all(tab["gains"] == [] for tab in board_data(found)["tabs"])
    assert "Gains: the row" not in page(found)
    assert "control" not in next(iter(csv.reader(io.StringIO(as_csv(found)))))


def test_the_page_has_a_table_of_gains(reader: Any, sweep: Any) -> None:
    sweep.add("aaaaaaaa", "low_rank", quality=0.30)
    twin = add_twin(sweep, "aaaaaaaa", "random_init", 0.35)
    data = board_data(board(reader))
    (shown,) = data["tabs"][0]["gains"]
    gain = gains(board(reader).tabs[0], twin)[0]
    cell = shown["cells"][data["tabs"][0]["columns"][0]["id"]]
    assert cell["v"] == gain.value
    assert f"{gain.value:+.3f}" in cell["t"]
    assert (shown["row"], shown["from"], shown["control"]) == ("aaaaaaaa", "decomposition", twin)
    assert "Gains: the row against its control" in page(board(reader))


def test_show_pairs_the_seed_it_shows(reader: Any, sweep: Any) -> None:
    for seed in (0, 1):
        sweep.add("aaaaaaaa", "low_rank", seed=seed)
        add_twin(sweep, "aaaaaaaa", "no_teacher", 0.3, seed=seed)
    (both,) = show(reader, "aaaaaaaa").twins
    (one,) = show(reader, "aaaaaaaa#1").twins
    assert {gain.basis for gain in both.gains.values()} == {"seeds and items"}
    assert {gain.basis for gain in one.gains.values()} == {"items only"}
    assert show(reader, both.row.id).twins == ()


def test_a_record_from_before_there_were_controls_still_reads(sweep: Any) -> None:
    data = sweep.add("aaaaaaaa", "low_rank").model_dump(mode="json")
    del data["cell"]["control"]
    assert read_record(data, "records/x.json").cell.control is None
