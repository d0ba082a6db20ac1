"""The board as terminal table, Markdown, CSV, JSON, and one row in full."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console, RenderableType

from results.board import board
from results.errors import StoreError
from results.formatting import count, duration, interval, value
from results.json_view import dumps
from results.show import as_json, as_terminal, show
from results.statistics import Summary
from results.table import as_csv, markdown, terminal

EVIL = "=HYPERLINK(1)|<img src=x>`[red]x"


def printed(renderable: RenderableType, width: int = 200) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def summary(middle: float, low: float | None, high: float | None, basis: str = "seeds and items") -> Summary:
    return Summary(middle, low, high, basis, 1, 10)


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (summary(32.4123, 31.98, 32.85), ("32.412", "31.980–32.850")),
        (summary(1234.6, 1200, 1260, "items only"), ("1234.6", "1200.0–1260.0 i")),
        (summary(-0.0712, -0.33, 0.19, "seeds only"), ("−0.071", "−0.330–0.190 s")),
        (summary(31.4159, None, None, "no interval"), ("31.42", "·")),
        (summary(float("inf"), None, None, "no interval"), ("inf", "·")),
        (summary(0.0, 0.0, 0.0), ("0.00", "0.00–0.00")),
    ],
)
def test_values_show_what_the_interval_supports(found: Summary, text: tuple[str, str]) -> None:
    assert (value(found), interval(found)) == text


def test_counts_and_durations() -> None:
    assert [count(n) for n in (124_439_808, 999, 1_500, 8e15)] == ["124.4M", "999", "1.5k", "8P"]
    assert [duration(s) for s in (12, 210, 7560)] == ["12 s", "3.5 min", "2.1 h"]


def test_terminal_shows_every_row_with_its_reason(finished: Any) -> None:
    text = printed(terminal(board(finished)))
    assert all(row.id in text for tab in board(finished).tabs for row in tab.rows)
    assert "tensor_train: failed: loss is not finite at step 17" in text
    assert "drop_layers: skipped: nearest is 0.71" in text
    assert "#1–2" in text


def test_markdown_tables_keep_their_shape(finished: Any, sweep: Any) -> None:
    sweep.add("40aaaaaa", "prune", status="failed", reason=EVIL + "\nsecond line")
    text = markdown(board(finished))
    for block in text.split("\n\n"):
        if block.startswith("|"):
            cells = {line.replace("\\|", "").count("|") for line in block.splitlines()}
            assert len(cells) == 1
    assert "<img" not in text
    assert "&lt;img src=x&gt;" in text


def test_csv_reads_back_with_full_numbers_and_no_formulas(finished: Any, sweep: Any) -> None:
    sweep.add("40aaaaaa", "prune", status="failed", reason=EVIL)
    found = board(finished)
    lines = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert len(lines) == sum(len(tab.rows) for tab in found.tabs)
    by_row = {line["row"]: line for line in lines}
    assert by_row["40aaaaaa"]["reason"] == "'" + EVIL
    score = found.tabs[0].rows[1].scores[found.tabs[0].columns[0].key]
    assert float(by_row[found.tabs[0].rows[1].id]["wikitext2.word_ppl.v1 word_perplexity low"]) == score.summary.low


@pytest.mark.parametrize("lead", ["=", "+", "-", "@", "\t"])
def test_csv_quotes_every_formula_lead(reader: Any, sweep: Any, lead: str) -> None:
    sweep.add("aaaaaaaa", "prune", status="failed", reason=f"{lead}1+1")
    (line,) = csv.DictReader(io.StringIO(as_csv(board(reader))))
    assert line["reason"] == ("␉1+1" if lead == "\t" else f"'{lead}1+1")


def test_json_compares_two_runs(finished: Any, new_reader: Callable[..., Any]) -> None:
    later = [
        r.model_copy(
            update={
                "provenance": {"created_at": "2027"},
                "costs": [c.model_copy(update={"worker_s": 1.5}) for c in r.costs],
                "speed": None,
            }
        )
        for r in finished.records()
    ]
    first, second = (json.loads(dumps(board(r))) for r in (finished, new_reader(later, finished.files)))
    assert first != second
    for data in (first, second):
        for tab in data["tabs"]:
            for row in [*tab["references"], *(row for group in tab["groups"] for row in group["rows"])]:
                for block in ("speed", "cost", "run"):
                    del row[block]
    assert first == second


def test_json_keys_are_sorted_and_floats_exact(finished: Any) -> None:
    text = dumps(board(finished))
    assert text == json.dumps(json.loads(text), sort_keys=True, indent=1, ensure_ascii=False) + "\n"
    tab = json.loads(text)["tabs"][0]
    score = tab["references"][0]["quality"][tab["columns"][0]["key"]]
    (measured, _) = finished.records()[0].measured
    assert score["by_seed"]["0"] == measured.value


def test_json_has_no_nan(reader: Any, sweep: Any) -> None:
    record = sweep.measurements("aaaaaaaa", 0.1, 0, "x")[0]
    sweep.add("aaaaaaaa", "prune", measured=[record.model_copy(update={"value": float("nan")})])
    quality = json.loads(dumps(board(reader)))["tabs"][0]["groups"][0]["rows"][0]["quality"]
    assert [score["value"] for score in quality.values()] == [None]


def test_an_empty_board_speaks_in_every_format(new_reader: Callable[..., Any]) -> None:
    empty = board(new_reader())
    assert "weighin run" in printed(terminal(empty))
    assert "weighin run" in markdown(empty)
    assert json.loads(dumps(empty))["tabs"] == []
    assert as_csv(empty).count("\n") == 1


def test_show_has_every_metric_and_one_seed_alone_is_items_only(reader: Any, sweep: Any) -> None:
    first = sweep.add("aaaaaaaa", "prune", seed=0)
    minor = first.measured[1].model_copy(update={"main": False})
    sweep.add("aaaaaaaa", "prune", seed=0, created="2027", measured=[first.measured[0], minor])
    other = sweep.add("aaaaaaaa", "prune", seed=1)
    assert {c.metric for c in show(reader, "aaaaaaaa").columns} == {"word_perplexity", "matthews"}
    one = show(reader, "aaaaaaaa#1")
    assert [seed.seed for seed in one.row.seeds] == [1]
    assert {score.summary.basis for score in one.row.scores.values()} == {"items only"}
    assert one.row.cost.worker_s_by_stage["teacher"] == 300
    assert f"{other.size.params:,}" in printed(as_terminal(one))


def test_show_tells_how_a_cell_failed_without_reading_markup(reader: Any, sweep: Any) -> None:
    sweep.add("aaaaaaaa", "prune", status="failed", reason="boom", log_tail="[bold]Traceback[/nonsense] end")
    shown = show(reader, "aaaaaaaa")
    assert "[bold]Traceback[/nonsense] end" in printed(as_terminal(shown))
    data = json.loads(as_json(shown))
    assert data["training"]["0"]["failure"]["failure_class"] == "diverged"


def test_show_names_the_nearest_row(finished: Any, new_reader: Callable[..., Any]) -> None:
    with pytest.raises(StoreError, match="did you mean '00aaaaaa'"):
        show(finished, "00aaaaab")
    with pytest.raises(StoreError, match="did you mean '00aaaaaa#1'"):
        show(finished, "00aaaaaa#7")
    with pytest.raises(StoreError, match="weighin run"):
        show(new_reader(), "00aaaaaa")
