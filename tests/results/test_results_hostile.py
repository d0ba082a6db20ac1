"""Hostile record files: every rendering is made, every rejection is named, nothing they say is obeyed."""

from __future__ import annotations

import csv
import io
import json
import re
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_records import NUM_FILES, hostile_files
from plotly.offline import get_plotlyjs

from harness import boards
from results.board import board
from results.errors import StoreError
from results.figures import row_figure
from results.load import parse_record
from results.plain_text import FORMULA, plain
from results.show import show
from results.store import Store

ITEMS = [f"page-{number}" for number in range(20)]
NUMBER = re.compile(r"-?(\d+(\.\d+)?(e[-+]?\d+)?|inf|nan)")


@pytest.fixture
def attacked(finished: Any, tmp_path: Path) -> Store:
    """A store of a finished sweep, and among its records the hostile files."""
    store = Store(str(tmp_path / "store"))
    store.create()
    for number, record in enumerate(finished.records()):
        store.add_record(record, f"{number:012x}")
    for name, data in hostile_files([r for r in finished.records() if r.measured]).items():
        store.write(f"records/{name}", data)
    return store


def readable(store: Store, name: str) -> bool:
    try:
        parse_record(store.read_bytes(f"records/{name}"), "")
    except StoreError:
        return False
    return True


def test_every_form_is_made_every_rejection_named_and_nothing_obeyed(attacked: Store, capfd: Any) -> None:
    found = board(attacked)
    boards.tell_rejected(found.rejected)
    told = capfd.readouterr().err.splitlines()
    texts = {form: boards.in_form(found, form) for form in boards.FORMATS}

    names = set(attacked.names("records"))
    bad = {name for name in names if not readable(attacked, name)}
    assert NUM_FILES / 4 < len(bad) < 3 * NUM_FILES / 4, "both kinds are wanted"
    assert all(line == plain(line) and line.startswith("warning: ") for line in told)
    files = [each.file.rpartition("records/")[2] for each in found.rejected]
    assert bad <= set(files)
    assert len(files) == len(set(files)) == len(told)

    data = json.loads(texts["json"])
    assert [each["file"].rpartition("records/")[2] for each in data["rejected"]] == files
    shown = {row["id"] for tab in data["tabs"] for group in tab["groups"] for row in group["rows"]}
    shown |= {row["id"] for tab in data["tabs"] for row in tab["references"]}
    shown |= {twin["row"]["id"] for tab in data["tabs"] for twin in tab["controls"]}
    good = {json.loads(attacked.read_bytes(f"records/{name}"))["row"] for name in names - bad}
    assert good <= shown, "no row is dropped in silence"

    texts["html"] = texts["html"].replace(get_plotlyjs(), "")
    for form, text in texts.items():
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text), form
    assert "<script" not in texts["md"]
    assert not re.search(r"<(img|svg/|iframe|script>alert)", texts["html"])
    head, *lines = csv.reader(io.StringIO(texts["csv"]))
    for line in lines:
        assert len(line) == len(head)
        formulas = [cell for cell in line if cell.startswith(FORMULA) and not NUMBER.fullmatch(cell)]
        assert not formulas


@pytest.mark.parametrize("value", [1e308, -1e308, 1e100, 1e50, 1e30, 5e-324, 0.0])
def test_numbers_at_the_edge_are_shown(reader: Any, sweep: Any, value: float) -> None:
    for row, sign in (("aaaaaaaa", 1), ("bbbbbbbb", -1)):
        for seed in (0, 1):
            record = sweep.add(row, f"m{row}", seed=seed)
            measured = [m.model_copy(update={"value": sign * (-1) ** seed * value}) for m in record.measured]
            curve = [{"step": value, "tokens": edge, "loss": value, "kd": -value} for edge in (value, inf, nan, -inf)]
            changes = {"measured": measured, "curve": curve, "provenance": {"created_at": "2027"}}
            reader.add(record.model_copy(update=changes))
    found = board(reader)
    assert len(found.tabs[0].rows) == 2
    for form in boards.FORMATS:
        assert boards.in_form(found, form)
    drawing = row_figure(show(reader, "aaaaaaaa").row, "svg")
    assert drawing is None or b"nan" not in drawing


@pytest.mark.parametrize(
    "columns",
    [
        {"item": ITEMS, "nll": ["x"] * 20, "words": [1] * 20},
        {"item": ITEMS, "nll": [[1.0]] * 20, "words": [1] * 20},
        {"item": ITEMS, "nll": [None] * 20, "words": [1] * 20},
        {"item": [None] * 20, "nll": [1.0] * 20, "words": [1] * 20},
        {"item": [{"a": 1}] * 20, "nll": [1.0] * 20, "words": [1] * 20},
        {"item": [bytes([255, number]) for number in range(20)], "nll": [3.0] * 20, "words": [1] * 20},
        {"item": ITEMS, "prediction": ["a"] * 20, "label": [1] * 20, "correct": ["x"] * 20},
        {"item": ITEMS, "nll": [nan] * 20, "words": [0] * 20},
        {"item": ITEMS, "nll": [1e308] * 20, "words": [1] * 20},
        {"item": ITEMS, "nll": [3.0] * 20, "in_word_perplexity": ["x"] * 20},
        {"item": [], "nll": []},
        {"nll": [3.0] * 20},
    ],
)
def test_items_that_are_none_cost_the_interval_alone(reader: Any, sweep: Any, columns: dict[str, Any]) -> None:
    path, digest = reader.put_items("hostile", columns)
    measured = sweep.measurements("aaaaaaaa", 0.1, 0, "sha256:wikitext2")
    changed = [each.model_copy(update={"items_path": path, "items_sha256": digest}) for each in measured]
    sweep.add("aaaaaaaa", "low_rank", measured=changed)
    sweep.add("bbbbbbbb", "prune")
    found = board(reader)
    bases = {row.id: {score.summary.basis for score in row.scores.values()} for row in found.tabs[0].rows}
    assert bases == {"aaaaaaaa": {"no interval"}, "bbbbbbbb": {"items only"}}
    assert boards.in_form(found, "json")
    assert show(reader, "aaaaaaaa")


def test_items_named_by_numbers_are_those_named_by_their_digits(reader: Any, sweep: Any) -> None:
    for row, names in (("aaaaaaaa", [str(number) for number in range(20)]), ("bbbbbbbb", list(range(20)))):
        path, digest = reader.put_items(row, {"item": names, "nll": [3.0 + (row > "b")] * 20, "words": [1] * 20})
        (ppl, _) = sweep.measurements(row, 0.1, 0, "sha256:wikitext2")
        value = {"value": float(np.exp(3.0 + (row > "b"))), "items_path": path, "items_sha256": digest}
        sweep.add(row, f"m{row}", measured=[ppl.model_copy(update=value)])
    (comparison,) = board(reader).tabs[0].comparisons
    assert comparison.p_value == 0.0
