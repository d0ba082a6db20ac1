"""A row's own loss curve: what is drawn of it, on the page and as an SVG."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from math import log10
from typing import Any

import pytest

from results.board import board
from results.curve_svg import BOTTOM, LEFT, RIGHT, TOP, curve_svg
from results.model import Row
from results.page import page
from results.plots import log_ticks, row_curves
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


def polylines(svg: str, part: str) -> list[list[tuple[float, float]]]:
    """The points of a part's lines, the one in the legend left out."""
    found = [each for each in ET.fromstring(svg).iter(f"{SVG}polyline") if each.get("class") == part]
    lines = [[tuple(map(float, point.split(","))) for point in each.attrib["points"].split()] for each in found]
    return [line for line in lines if line[0][1] > TOP - 1]  # type: ignore[misc]


def test_each_seed_has_its_loss_and_the_parts_that_differ_from_it(reader: Any, sweep: Any) -> None:
    found = row_curves(row(reader, sweep, points(4, 2, ce=1, kd=0.5), points(5, NAN, 3, ce=1, kd=0.5)))
    assert [(line["part"], line["seed"], line["x"], line["y"]) for line in found] == [
        ("loss", 0, [1000, 2000], [4, 2]),
        ("kd", 0, [1000, 2000], [2, 1]),
        ("loss", 1, [1000, 2000, 3000], [5, None, 3]),
        ("kd", 1, [1000, 2000, 3000], [2.5, None, 1.5]),
    ]


def test_values_over_decades_get_a_logarithmic_scale(reader: Any, sweep: Any) -> None:
    assert log_ticks([{"y": [10.0, None, 0.5]}]) == [0.5, 1.0, 2.0, 5.0, 10.0]
    assert log_ticks([{"y": [9.9, 0.5]}]) == []
    assert log_ticks([{"y": [10.0, 0.0]}]) == []
    assert log_ticks([]) == []


@pytest.mark.parametrize("last", [2.0, 0.01])
def test_the_svg_puts_every_point_in_its_place(reader: Any, sweep: Any, last: float) -> None:
    losses = [4.0, 3.0, last]
    svg = curve_svg(row(reader, sweep, points(*losses)))
    assert svg is not None
    (line,) = polylines(svg, "loss")

    def scale(value: float) -> float:
        return log10(value) if last < 1 else value

    for (x, y), tokens, loss in zip(line, (1000, 2000, 3000), losses, strict=True):
        assert x == pytest.approx(LEFT + (RIGHT - LEFT) * (tokens - 1000) / 2000, abs=0.1)
        share = (scale(loss) - scale(last)) / (scale(4.0) - scale(last))
        assert y == pytest.approx(BOTTOM + (TOP - BOTTOM) * share, abs=0.1)


def test_the_svg_has_gaps_seeds_and_a_legend(reader: Any, sweep: Any) -> None:
    svg = curve_svg(row(reader, sweep, points(4, NAN, 2, 1, kd=2), points(5, 4, kd=2)))
    assert svg is not None
    assert [len(line) for line in polylines(svg, "loss")] == [1, 2, 2]
    texts = [text.text for text in ET.fromstring(svg).iter(f"{SVG}text")]
    assert texts[:3] == ["svd, params=0.66, shared, row aaaaaaaa #0 #1", "loss", "kd"]
    assert "prefers-color-scheme: dark" in svg


def test_a_flat_curve_of_one_step_is_drawn(reader: Any, sweep: Any) -> None:
    svg = curve_svg(row(reader, sweep, points(2.5)))
    assert svg is not None
    assert polylines(svg, "loss") == [[(LEFT, BOTTOM)]]


def test_a_row_without_training_has_no_curve(reader: Any, sweep: Any) -> None:
    untrained = row(reader, sweep, [])
    assert curve_svg(untrained) is None
    html = page(board(reader))
    assert "data-row" not in html.partition("<script")[0]


def test_hostile_texts_stay_texts(reader: Any, sweep: Any) -> None:
    evil = "</text><script>alert(1)</script>\x00\"'&<!--"
    svg = curve_svg(row(reader, sweep, points(4, 2), method=evil))
    assert svg is not None
    root = ET.fromstring(svg)
    assert not list(root.iter(f"{SVG}script"))
    assert evil.replace("\x00", "␀") in str(root.findtext(f"{SVG}title"))
