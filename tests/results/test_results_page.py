"""The page is self-contained and holds records as data, whatever they contain."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from typing import Any

import pytest

from results.board import board
from results.changes import Changes
from results.formatting import resolution
from results.model import Board
from results.page import SCRIPTS, page, script_json
from results.page_data import board_data
from results.page_details import all_details, commands
from results.reader import Rejected
from results.verification import RowVerification

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&<!--"


class Outline(HTMLParser):
    """Elements with their attributes, and the text inside scripts by their number."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)


def outline(html: str) -> Outline:
    parser = Outline()
    parser.feed(html)
    return parser


def blocks(html: str) -> dict[str, Any]:
    """The page's data blocks, read back."""
    found = outline(html).scripts
    return {str(a["id"]): json.loads(text) for a, text in found if a.get("type") == "application/json"}


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


def test_hostile_texts_stay_data(evil: Any) -> None:
    html = page(board(evil, EVIL), [EVIL])
    found = outline(html)
    assert found.tags.count("script") == 5
    assert "img" not in found.tags
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    (tab,) = blocks(html)["board"]["tabs"]
    assert (tab["teacher"], tab["rows"][0]["method"]) == (EVIL, EVIL)
    assert any(seed.get("log") == EVIL for each in blocks(html)["details-0"].values() for seed in each["seeds"])


def test_the_template_puts_no_text_of_a_record_outside_data_and_title(evil: Any) -> None:
    html = page(board(evil, EVIL), [EVIL])
    rest = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    assert rest.count("alert(1)") == rest.partition("</title>")[0].count("alert(1)")
    assert "<img" not in rest


def test_our_scripts_never_read_markup() -> None:
    for name in SCRIPTS:
        code = files("results").joinpath(name).read_text(encoding="utf-8")
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|fetch\(", code
        )
        assert len(code.splitlines()) < 400


def test_data_block_cannot_be_left_and_reads_back() -> None:
    text = script_json({"name": EVIL + "\u2028\ud800"})
    assert not re.search("[<>&\u2028]", text)
    assert json.loads(text) == {"name": EVIL + "\u2028?"}


def test_numbers_that_json_lacks_become_null() -> None:
    assert json.loads(script_json({"a": [float("nan"), 1.5, {"b": float("inf")}]})) == {"a": [None, 1.5, {"b": None}]}


def test_the_policy_allows_this_pages_scripts_and_nothing_else(finished: Any) -> None:
    found = outline(page(board(finished)))
    (text,) = [value for _, value in found.attributes if value and value.startswith("default-src")]
    policy = dict(part.strip().split(" ", 1) for part in text.split(";"))
    assert policy["default-src"] == "'none'"
    assert "unsafe" not in policy["script-src"]
    runs = [text for attributes, text in found.scripts if attributes.get("type") != "application/json"]
    hashes = {f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in runs}
    assert set(policy["script-src"].split()) == hashes
    assert len(hashes) == 3


def test_nothing_is_fetched(finished: Any) -> None:
    found = outline(page(board(finished)))
    references = [value for name, value in found.attributes if name in ("src", "href") and value]
    assert references == ["data:,"]


def test_the_vendored_library_is_the_released_one_and_its_licence_is_on_the_page(finished: Any) -> None:
    vendor = files("results").joinpath("vendor")
    html = page(board(finished))
    for entry in json.loads(vendor.joinpath("vendored.json").read_text()):
        data = vendor.joinpath(entry["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == entry["sha256"]
        assert entry["version"] in entry["file"]
        assert f"{entry['version']}\n{vendor.joinpath(entry['licence_file']).read_text()}" in html


def test_every_row_stands_on_its_tab_with_reason_and_commands(finished: Any) -> None:
    found = blocks(page(board(finished), ["s3://user:secret@bucket/a b"]))
    for place, tab in enumerate(board(finished).tabs):
        assert [row["id"] for row in found["board"]["tabs"][place]["rows"]] == [row.id for row in tab.rows]
        for row in tab.rows:
            told = found[f"details-{place}"][row.id]["commands"]
            assert told[0] == f"weighin reproduce {row.id} --store 's3://bucket/a b'"
    assert "loss is not finite at step 17" in [row.get("reason") for row in found["board"]["tabs"][0]["rows"]]


def test_commands_are_quoted_for_a_shell() -> None:
    assert commands("a b", ["/x;rm"])[1] == "weighin show 'a b' --store '/x;rm'"
    assert commands("aaaaaaaa", ["a", "b"])[0] == "weighin reproduce aaaaaaaa --store a --store b"


def test_scores_carry_intervals_ranks_and_fronts(finished: Any) -> None:
    found = board(finished)
    data = board_data(found)["tabs"][0]
    name = data["columns"][0]["id"]
    for row, told in zip(found.tabs[0].rows, data["rows"], strict=True):
        score = row.scores.get(found.tabs[0].columns[0].key)
        if score is None:
            assert name not in told["scores"]
            continue
        shown = told["scores"][name]
        assert (shown["v"], shown["lo"], shown["hi"]) == (score.summary.value, score.summary.low, score.summary.high)
        assert shown.get("rank") == (list(score.rank) if score.rank else None)
        assert ("params" in shown.get("front", [])) == score.pareto


def test_rows_of_different_recipes_are_in_sections_of_their_own(finished: Any) -> None:
    data = board_data(board(finished))["tabs"][0]
    assert data["sections"] == ["Reference", "Recipe: shared", "Recipe: none"]
    assert {(row["recipe"].split()[0], row["section"]) for row in data["rows"][1:]} == {("shared", 1), ("none", 2)}


def test_details_keep_curves_as_they_are_and_gaps_where_the_loss_is_not_finite(reader: Any, sweep: Any) -> None:
    points = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": float("nan")}]
    sweep.add("aaaaaaaa", "prune", status="failed", reason="diverged", curve=points)
    (tab,) = board(reader).tabs
    assert all_details(tab, [])["aaaaaaaa"]["curves"] == [{"seed": 0, "x": [1, 2], "parts": {"loss": [2.0, None]}}]


def test_what_stands_beside_the_rows_reaches_the_page(finished: Any) -> None:
    found = board(finished)
    changes = Changes(since=EVIL, found=(), within_noise=3)
    more = replace(found, rejected=(Rejected("records/a.json", EVIL),), notes=("two stores disagree",), changes=changes)
    data = blocks(page(more))["board"]
    assert data["rejected"] == [f"records/a.json: {EVIL}"]
    assert data["notes"] == ["two stores disagree"]
    assert data["changes"] == {"title": f"Changed since {EVIL}", "lines": ["3 further values moved within their noise"]}
    tab, first = found.tabs[0], data["tabs"][0]
    assert len(first["reported"]["lines"]) == len(tab.reported) > 0
    assert {len(cells) for cells in first["reported"]["lines"]} == {len(first["reported"]["head"])}
    assert first["resolution"] == resolution(tab)


def test_a_verified_and_a_stale_row_say_so(finished: Any) -> None:
    (tab, *_) = board(finished).tabs
    (group, *rest) = tab.groups
    first, second, *others = group.rows
    verified = RowVerification(
        verdict="holds",
        date="2026-02-03T00:00:00Z",
        difference=0.0,
        re_evaluated=2,
        recomputed=0,
        unchecked=0,
        seeds=(0, 1),
    )
    rows = [replace(first, verified=verified), replace(second, stale="old", refresh="weighin run demo"), *others]
    changed = replace(tab, groups=(replace(group, rows=rows), *rest))
    data = board_data(Board(None, (changed,)))["tabs"][0]
    shown = {row["id"]: row for row in data["rows"]}
    assert (shown[first.id]["mark"], shown[second.id]["stale"]) == ("✓", "old")
    assert "mark" not in shown[second.id]
    assert not any(score.get("front") for score in shown[second.id]["scores"].values())
    told = all_details(changed, [])
    assert dict(told[first.id]["facts"])["checked"] == verified.text
    assert dict(told[second.id]["facts"])["checked"].startswith("claimed")
    assert told[second.id]["commands"][-1] == "weighin run demo"


def test_the_page_is_a_function_of_the_board(finished: Any) -> None:
    assert page(board(finished)) == page(board(finished))


def test_an_empty_page_says_what_to_run(new_reader: Callable[..., Any]) -> None:
    html = page(board(new_reader()))
    assert "weighin run" in html
    assert len(html) < 150_000
