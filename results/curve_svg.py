"""A row's training loss as one SVG file, drawn here: no browser and no fonts of ours, light and dark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from math import ceil, floor, log10
from typing import Any

from results.formatting import count
from results.model import Row
from results.plots import PARTS, log_ticks, row_curves

WIDTH, HEIGHT = 760, 400
LEFT, RIGHT, TOP, BOTTOM = 60, 740, 64, 352
STYLE = """
  .ground { fill: #fcfcfb } text { fill: #646a76; font: 12px system-ui, sans-serif }
  .title { fill: #1b1d22; font-weight: 600 }
  .grid { stroke: #e3e4e8 } polyline { fill: none; stroke-width: 1.5 }
  .loss { stroke: #1b1d22 } .ce { stroke: #d1660a } .kd { stroke: #15803d } .taps { stroke: #a21caf }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #131519 } text { fill: #9aa2b1 } .title { fill: #e7e9ee } .grid { stroke: #2d323b }
    .loss { stroke: #e7e9ee } .ce { stroke: #f5a35c } .kd { stroke: #63c788 } .taps { stroke: #e08bea }
  }
"""


def curve_svg(row: Row) -> str | None:
    """Loss and its parts against training tokens, a line per seed; None when the row was not trained.

    The scale is logarithmic where the values span decades. Every text of a record is escaped.
    """
    lines = row_curves(row)
    if not lines:
        return None
    xs = [x for line in lines for x in line["x"] if x is not None]
    ys = [y for line in lines for y in line["y"] if y is not None]
    across = _scale(min(xs), max(xs), LEFT, RIGHT, log=False)
    ticks = log_ticks(lines)
    upwards = _scale(min(ys), max(ys), BOTTOM, TOP, log=bool(ticks))
    drawn = [
        f'<polyline class="{line["part"]}" points="{run}"/>' for line in lines for run in _runs(line, across, upwards)
    ]
    seeds = " ".join(f"#{seed.seed}" for seed in row.seeds if seed.curve)
    title = _plain(f"{row.label}, {row.budget or 'no budget'}, {row.recipe}, row {row.id} {seeds}")
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}">',
            f"<title>{title}</title><style>{STYLE}</style>",
            f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}"/>',
            f'<text class="title" x="{LEFT}" y="24">{title}</text>',
            *_legend([part for part in PARTS if any(line["part"] == part for line in lines)]),
            *_rows(ticks or _ticks(min(ys), max(ys)), upwards),
            *_columns(_ticks(min(xs), max(xs)), across),
            *drawn,
            "</svg>\n",
        ]
    )


def _plain(text: str) -> str:
    """A text as XML shows it; control characters, which it cannot hold, become spaces."""
    return escape("".join(letter if letter.isprintable() else " " for letter in text))


def _scale(low: float, high: float, start: float, end: float, *, log: bool) -> Callable[[float], float]:
    """Where a value between `low` and `high` is drawn between `start` and `end`."""
    place: Callable[[float], float] = log10 if log else float
    first, span = place(low), place(high) - place(low) or 1.0
    return lambda value: start + (end - start) * (place(value) - first) / span


def _ticks(low: float, high: float) -> list[float]:
    """Round values inside the range: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low or 1.0) / 7
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    return [number * step for number in range(ceil(low / step), floor(high / step) + 1)]


def _runs(line: Mapping[str, Any], across: Callable[[float], float], upwards: Callable[[float], float]) -> list[str]:
    """Points of a line, cut where a value is missing."""
    runs: list[list[str]] = [[]]
    for x, y in zip(line["x"], line["y"], strict=True):
        if x is None or y is None:
            runs.append([])
        else:
            runs[-1].append(f"{across(x):.1f},{upwards(y):.1f}")
    return [" ".join(run) for run in runs if run]


def _legend(parts: Sequence[str]) -> list[str]:
    places = [(part, LEFT + 70 * number) for number, part in enumerate(parts)]
    return [
        f'<polyline class="{part}" points="{x},42 {x + 18},42"/><text x="{x + 24}" y="46">{part}</text>'
        for part, x in places
    ]


def _rows(ticks: Sequence[float], upwards: Callable[[float], float]) -> list[str]:
    return [
        f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{upwards(tick):.1f}" y2="{upwards(tick):.1f}"/>'
        f'<text x="{LEFT - 8}" y="{upwards(tick) + 4:.1f}" text-anchor="end">{tick:.4g}</text>'
        for tick in ticks
    ]


def _columns(ticks: Sequence[float], across: Callable[[float], float]) -> list[str]:
    middle = (LEFT + RIGHT) / 2
    labels = [
        f'<text x="{across(tick):.1f}" y="{BOTTOM + 18}" text-anchor="middle">{count(tick)}</text>' for tick in ticks
    ]
    return [*labels, f'<text x="{middle}" y="{BOTTOM + 38}" text-anchor="middle">training tokens</text>']
