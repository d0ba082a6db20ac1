"""What changed since the last board: every kind of change, noise, dates, and files that are no boards."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from results.board import board
from results.changes import Before, Changes, changes, read_board, sentences
from results.errors import StoreError
from results.json_view import dumps
from results.table import markdown, terminal


def kept(reader: Any, sweep: str | None = None) -> Any:
    return read_board(dumps(board(reader, sweep)), "board.json")


def since(reader: Any, old: Any) -> Changes:
    return changes(old, kept(reader), "board.json")


def kinds(found: Changes) -> list[tuple[str, str]]:
    return [(each.kind, each.row) for each in found.found]


def test_nothing_changed(finished: Any) -> None:
    found = since(finished, kept(finished))
    assert (found.found, found.within_noise) == ((), 0)
    assert list(sentences(found)) == ["nothing changed"]


def test_rows_come_and_go_and_references_count_once(reader: Any, sweep: Any) -> None:
    sweep.add("aaaaaaaa", "low_rank")
    sweep.add("bbbbbbbb", "low_rank", budget="params=0.33", fields={"layers": "mlp"})
    old = kept(reader)
    reader.clear()
    sweep.add("aaaaaaaa", "low_rank")
    sweep.add("cccccccc", "prune", status="failed", reason="diverged")
    sweep.add("00000000", "identity", budget=None, recipe="none", quality=0.0)
    found = since(reader, old)
    assert kinds(found) == [("new row", "00000000"), ("new row", "cccccccc"), ("gone row", "bbbbbbbb")]
    assert [(each.budget, each.old, each.new) for each in found.found] == [
        ("", None, "complete"), ("params=0.66", None, "failed"), ("params=0.33", "complete", None)
    ]  # fmt: skip
    assert "gone row: bbbbbbbb low_rank (layers=mlp), complete (gpt2 at params=0.33)" in sentences(found)


def test_status_value_and_rank(reader: Any, sweep: Any) -> None:
    for row, method, quality in (("aaaaaaaa", "low_rank", 0.3), ("bbbbbbbb", "prune", 0.9), ("cccccccc", "tq", 2.0)):
        for seed in (0, 1):
            sweep.add(row, method, seed=seed, quality=quality, created="2026-01-01")
    old = kept(reader)
    for seed in (0, 1):
        sweep.add("bbbbbbbb", "prune", seed=seed, quality=0.1, created="2026-01-02")
    sweep.add("cccccccc", "tq", seed=2, status="failed", reason="diverged")
    found = since(reader, old)
    by_kind = {(each.kind, each.row, each.column.split()[0] if each.column else ""): each for each in found.found}
    status = by_kind["status", "cccccccc", ""]
    assert (status.old, status.new) == ("complete", "failed: seed 2: diverged")
    value = by_kind["value", "bbbbbbbb", "wikitext2.word_ppl.v1"]
    assert value.better is True
    assert value.new < value.old
    assert by_kind["value", "bbbbbbbb", "glue.cola.v1"].better is True
    ranks = {row: (each.old, each.new) for (kind, row, of), each in by_kind.items() if kind == "rank" and "ppl" in of}
    assert ranks == {"aaaaaaaa": ([1, 1], [2, 2]), "bbbbbbbb": ([2, 2], [1, 1]), "cccccccc": ([3, 3], None)}
    told = "\n".join(sentences(found))
    assert "wikitext2.word_ppl.v1 word_perplexity #2 → #1 (gpt2 at params=0.66)" in told
    assert ", better (gpt2 at params=0.66)" in told
    assert not [each for each in found.found if each.kind == "value" and each.row != "bbbbbbbb"]


def scored(value: float | None, low: float | None, high: float | None, metric: str = "accuracy") -> dict[str, Any]:
    column = {"key": "k", "protocol": "p", "metric": metric, "higher_is_better": metric == "accuracy"}
    score = {"value": value, "low": low, "high": high, "rank": None}
    row = {"id": "aaaaaaaa", "method": "m", "fields": {}, "status": "complete", "reason": "", "quality": {"k": score}}
    tab = {"teacher": "t", "budget": "b", "columns": [column], "references": [], "groups": [{"rows": [row]}]}
    return {"format": 1, "tabs": [tab]}


@pytest.mark.parametrize(
    ("old", "new", "metric", "moved"),
    [
        ((0.5, 0.47, 0.53), (0.54, 0.50, 0.58), "accuracy", False),  # hypot(0.03, 0.04) = 0.05
        ((0.5, 0.47, 0.53), (0.551, 0.511, 0.591), "accuracy", True),
        ((100.0, 90.0, 111.1), (115.0, 103.5, 127.8), "ppl", False),  # ln 1.15 < 0.105 sqrt(2)
        ((100.0, 90.0, 111.1), (117.0, 105.3, 130.0), "ppl", True),
        ((0.5, None, None), (0.5 * (1 + 9e-6), None, None), "accuracy", False),
        ((0.5, None, None), (0.5 * (1 + 2e-5), None, None), "accuracy", True),
        ((10.0, 9.0, 11.0), (None, None, None), "ppl", True),
    ],
)
def test_noise_is_the_half_widths_of_both_intervals(old: Any, new: Any, metric: str, moved: bool) -> None:
    found = changes(scored(*old, metric), scored(*new, metric), "x")
    assert ([each.kind for each in found.found], found.within_noise) == ((["value"], 0) if moved else ([], 1))


def test_columns_come_and_go(reader: Any, sweep: Any) -> None:
    sweep.add("aaaaaaaa", "low_rank")
    old = kept(reader)
    reader.clear()
    ppl, _ = sweep.measurements("aaaaaaaa", 0.1, 0, "sha256:wikitext2")
    newer = ppl.model_copy(update={"protocol": "wikitext2.word_ppl.v2"})
    sweep.add("aaaaaaaa", "low_rank", measured=[ppl, newer])
    found = since(reader, old)
    assert [(each.kind, each.column) for each in found.found] == [
        ("new column", "wikitext2.word_ppl.v2 word_perplexity"), ("gone column", "glue.cola.v1 matthews")
    ]  # fmt: skip


def test_a_store_as_it_was_before_a_day(reader: Any, sweep: Any) -> None:
    sweep.add("aaaaaaaa", "low_rank", created="2026-01-01T10:00:00Z")
    sweep.add("bbbbbbbb", "prune", created="2026-01-02T10:00:00Z")
    then = {time: {row.id for tab in board(Before(reader, time)).tabs for row in tab.rows} for time in
            ("2026-01-01", "2026-01-02", "2026-01-02T10:00:00Z", "2026-01-02T10:00:01Z")}  # fmt: skip
    both = {"aaaaaaaa", "bbbbbbbb"}
    assert list(then.values()) == [set(), {"aaaaaaaa"}, {"aaaaaaaa"}, both]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not a board"),
        ('{"format": 1}', "not a board"),
        ('{"format": 99, "tabs": []}', "format 99; this weighin compares format 1"),
    ],
)
def test_a_file_that_is_no_board_is_told_in_one_line(text: str, told: str) -> None:
    with pytest.raises(StoreError) as error:
        read_board(text, "x.json")
    assert told in str(error.value)
    assert str(error.value).startswith("x.json: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("tabs", [[1], [{}], [{"columns": [], "references": [{}]}], [{"teacher": "t", "columns": 3}]])
def test_a_board_with_holes_is_told_in_one_line(reader: Any, sweep: Any, tabs: Any) -> None:
    sweep.add("aaaaaaaa", "low_rank")
    with pytest.raises(StoreError, match=r"^board.json: not a whole board"):
        since(reader, read_board(json.dumps({"format": 1, "tabs": tabs}), "x.json"))


def test_every_form_tells_it(reader: Any, sweep: Any) -> None:
    sweep.add("aaaaaaaa", "low_rank")
    old = kept(reader)
    sweep.add("bbbbbbbb", "prune", fields={"layers": "<b>*x*"})
    found = replace(board(reader), changes=since(reader, old))
    console = Console(width=200, file=io.StringIO(), color_system=None)
    console.print(terminal(found))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "changed since board.json:" in text
    assert "new row: bbbbbbbb prune (layers=<b>*x*), complete (gpt2 at params=0.66)" in text
    told = markdown(found)
    assert "## Changed since board.json" in told
    assert "- new row: bbbbbbbb prune (layers=&lt;b&gt;\\*x\\*), complete" in told
    data = json.loads(dumps(found))["changes"]
    assert (data["since"], data["within_noise"]) == ("board.json", 0)
    assert next((each["kind"], each["row"]) for each in data["found"]) == ("new row", "bbbbbbbb")
    assert "changes" not in json.loads(dumps(board(reader)))
