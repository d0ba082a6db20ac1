"""The page is self-contained and shows records as text, whatever they contain."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from results.board import board
from results.page import page, script_json
from results.plots import colours, curves, quality

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&<!--"


class Outline(HTMLParser):
    """Counts elements, and gathers their attributes and visible text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def outline(html: str) -> Outline:
    parser = Outline()
    parser.feed(html)
    return parser


@pytest.fixture
def evil(reader: Any, sweep: Any) -> Any:
    """Every text of a record is an attack."""
    first = sweep.add("aaaaaaaa", "low_rank")
    measured = [m.model_copy(update={"protocol": EVIL, "data": EVIL, "unit": EVIL}) for m in first.measured]
    cell = first.cell.model_copy(
        update={"teacher": EVIL, "method": EVIL, "fields": {EVIL: EVIL}, "recipe_digest": EVIL}
    )
    changes: dict[str, Any] = {"cell": cell, "sweep": EVIL, "provenance": {EVIL: EVIL, "more": {EVIL: [EVIL]}}}
    reader.clear()
    one = sweep.add("bbbbbbbb", "x", measured=measured, **changes)
    two = sweep.add("cccccccc", "x", status="failed", reason=EVIL, log_tail=EVIL, **changes)
    reader.clear()
    for record in (one.model_copy(update={"stages": {EVIL: EVIL}}), two.model_copy(update={"row": EVIL})):
        reader.add(record)  # Reading would reject these; what is shown must not rest on that.
    return reader


def test_hostile_texts_stay_texts(evil: Any) -> None:
    found = outline(page(board(evil, EVIL)))
    assert found.tags.count("script") == 3
    assert "img" not in found.tags
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    assert any(EVIL in text for text in found.texts)


def test_data_block_cannot_be_left_and_reads_back() -> None:
    text = script_json({"name": EVIL})
    assert not re.search(r"[<>&]", text)
    assert json.loads(text) == {"name": EVIL}


def test_nothing_is_fetched(finished: Any) -> None:
    found = outline(page(board(finished)))
    references = [value for name, value in found.attributes if name in ("src", "href") and value]
    assert all(reference.startswith(("#", "data:")) for reference in references)
    assert "import url" not in page(board(finished))


def test_every_row_stands_on_its_tab_with_reason_and_command(finished: Any) -> None:
    html = page(board(finished))
    for tab in board(finished).tabs:
        for row in tab.rows:
            assert f"weighin show {row.id}" in html
    assert "loss is not finite at step 17" in html
    assert html.count("<section ") == 2


def test_plots_show_all_budgets_and_mark_the_one_of_the_tab(finished: Any) -> None:
    found = board(finished)
    plot = quality(found, found.tabs[1], colours(found))[0]
    lines = {line["name"]: [(point["row"], point["here"]) for point in line["points"]] for line in plot["traces"]}
    assert lines["prune · shared"] == [("12aaaaaa", True), ("02aaaaaa", False)]
    assert lines["low_rank (layers=mlp) · none"] == [("20aaaaaa", False)]
    assert [point["name"] for point in plot["references"]] == ["identity"]
    assert plot["log"]


def test_curves_leave_gaps_where_the_loss_is_not_finite(reader: Any, sweep: Any) -> None:
    points = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": float("nan")}]
    sweep.add("aaaaaaaa", "prune", status="failed", reason="diverged", curve=points)
    found = board(reader)
    (line,) = curves(found.tabs[0], colours(found))
    assert (line["x"], line["y"]) == ([1, 2], [2.0, None])


def test_the_page_is_a_function_of_the_board(finished: Any) -> None:
    assert page(board(finished)) == page(board(finished))


def test_an_empty_page_says_what_to_run(new_reader: Callable[..., Any]) -> None:
    html = page(board(new_reader()))
    assert "weighin run" in html
    assert len(html) < 50_000
