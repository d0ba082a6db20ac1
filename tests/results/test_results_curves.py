"""Plots: what is drawn of a loss curve, Pareto fronts, and the board's figures as files."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import pytest

from results.board import board
from results.errors import StoreError
from results.figures import FORMS, figure, kinds, row_figure
from results.model import Row
from results.plots import AXES, axes, front, fronts, recipes, row_curves, shape
from results.show import show

NAN = float("nan")
SVG = "{http://www.w3.org/2000/svg}"


def row(reader: Any, sweep: Any, *curves: list[dict[str, float]], method: str = "svd") -> Row:
    """A row with a seed for each curve."""
    for seed, curve in enumerate(curves):
        sweep.add("aaaaaaaa", method, seed=seed, curve=curve)
    return show(reader, "aaaaaaaa").row


def points(*losses: float, **parts: float) -> list[dict[str, float]]:
    """A curve of 1000 tokens a step; each part is a multiple of the loss."""
    return [
        {"step": step, "tokens": 1000.0 * step, "loss": loss} | {name: loss * factor for name, factor in parts.items()}
        for step, loss in enumerate(losses, 1)
    ]


def test_each_seed_has_its_loss_and_the_parts_that_differ_from_it(reader: Any, sweep: Any) -> None:
    found = row_curves(row(reader, sweep, points(4, 2, ce=1, kd=0.5), points(5, NAN, 3, ce=1, kd=0.5)))
    assert [(line["part"], line["seed"], line["x"], line["y"]) for line in found] == [
        ("loss", 0, [1000, 2000], [4, 2]),
        ("kd", 0, [1000, 2000], [2, 1]),
        ("loss", 1, [1000, 2000, 3000], [5, None, 3]),
        ("kd", 1, [1000, 2000, 3000], [2.5, None, 1.5]),
    ]


def test_a_front_is_what_nothing_of_at_most_its_weight_betters() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        weights, goods = rng.integers(1, 60, 25).astype(float), rng.integers(0, 12, 25).astype(float)
        found = {str(i): (w, g) for i, (w, g) in enumerate(zip(weights, goods, strict=True))}
        expected = {
            name
            for name, (w, g) in found.items()
            if not any(good > g and weight <= 1.02 * w for weight, good in found.values())
        }
        assert set(front(found)) == expected
    assert front({}) == []


def test_fronts_on_parameters_are_the_boards_own_mark(finished: Any) -> None:
    found = board(finished)
    column = found.tabs[0].columns[0]
    marked = {
        row.id for tab in found.tabs for row in tab.rows if column.key in row.scores and row.scores[column.key].pareto
    }
    drawn = [fronts(rows, column) for rows in recipes(found, "gpt2").values()]
    assert {id_ for each in drawn for id_ in each["params"]} == marked
    assert all(set(each) == set(AXES) for each in drawn)


def test_axes_leave_out_what_is_not_known(finished: Any) -> None:
    rows = {row.id: row for row in board(finished).tabs[0].rows}
    assert axes(rows["00aaaaaa"])["bytes"] == 4 * axes(rows["00aaaaaa"])["params"]
    assert axes(rows["00aaaaaa"])["cost"] == rows["00aaaaaa"].cost.worker_s / 2
    assert set(axes(rows["31aaaaaa"])) <= {"cost", "flops"}


def test_forty_nine_methods_have_a_colour_and_shape_of_their_own() -> None:
    assert len({(number % 7, shape(number)) for number in range(49)}) == 49


@pytest.mark.parametrize("kind", ["pareto", "curves", "cost"])
def test_a_figure_is_an_svg_of_the_boards_words_and_the_same_each_time(finished: Any, kind: str) -> None:
    svg = figure(board(finished), kind, "svg")
    texts = " ".join(text for text in ET.fromstring(svg).itertext())
    for words in ("kronecker", "gpt2", {"pareto": "word_perplexity", "curves": "loss", "cost": "distill"}[kind]):
        assert words in texts
    assert svg == figure(board(finished), kind, "svg")


def test_files_are_what_their_names_say(reader: Any, sweep: Any) -> None:
    found = row(reader, sweep, points(4, NAN, 2, kd=0.01), points(5, 4, kd=0.01))
    starts = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}
    for form in FORMS:
        drawing = row_figure(found, form)
        assert drawing is not None
        assert drawing.startswith(starts[form])


def test_a_row_without_training_has_no_curve_and_a_board_says_so(reader: Any, sweep: Any) -> None:
    assert row_figure(row(reader, sweep, []), "svg") is None
    with pytest.raises(StoreError, match="curves: no row"):
        figure(board(reader), "curves", "svg")


def test_an_empty_board_says_what_to_run(reader: Any) -> None:
    for kind in kinds():
        with pytest.raises(StoreError, match="weighin run"):
            figure(board(reader), kind, "svg")


def test_hostile_texts_stay_texts(reader: Any, sweep: Any) -> None:
    evil = "</text><script>alert(1)</script>\x00$\\frac{\"'&<!--\u8a00"
    found = row(reader, sweep, points(4, 2), method=evil)
    for svg in (row_figure(found, "svg"), figure(board(reader), "pareto", "svg")):
        assert svg is not None
        root = ET.fromstring(svg)
        assert not list(root.iter(f"{SVG}script"))
        assert evil.replace("\x00", "␀") in " ".join(root.itertext())
