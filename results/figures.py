"""The board's plots as files for papers: SVG, PNG or PDF, the same bytes for the same board."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import ceil
from typing import TYPE_CHECKING, Any

from results.errors import StoreError
from results.formatting import titles
from results.model import Board, Column, Row, Tab
from results.plots import (
    AXES,
    OKABE_ITO,
    PARTS,
    axes,
    colours,
    columns_of,
    drawable,
    fronts,
    has_curves,
    is_log,
    recipes,
    row_curves,
    shape,
    stages,
)
from results.table import heading

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMS = ("svg", "png", "pdf")
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
DASHES = ("-", "--", ":", "-.")
HATCHES = ("", "//", "xx", "--", "\\\\", "++", "..")
SETTINGS = {
    "svg.hashsalt": "weighin",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e2e4e8",
    "axes.axisbelow": True,
    "legend.fontsize": 8,
    "legend.frameon": False,
}
MOST_ROWS = 24
"""In a panel of costs or curves, whose title tells of more."""
Panel = Callable[["Axes"], None]


def kinds() -> list[str]:
    """What `weighin board --plot` draws."""
    return ["pareto", *(f"pareto-{axis}" for axis in AXES), "curves", "cost"]


def figure(board: Board, kind: str, form: str) -> bytes:
    """One of `kinds()` in one of `FORMS`; StoreError when the board has nothing of it."""
    if kind == "curves":
        panels = [_curves_panel(tab, colours(board)) for tab in board.tabs if has_curves(tab)]
    elif kind == "cost":
        panels = [_cost_panel(tab) for tab in board.tabs]
    else:
        axis = kind.partition("-")[2] or "params"
        panels = [panel for teacher in _teachers(board) for panel in _pareto_panels(board, teacher, axis)]
    if not panels:
        raise StoreError(f"--plot {kind}: {board.message or 'no row of this board has what it needs'}")
    return _draw(panels, form)


def row_figure(row: Row, form: str) -> bytes | None:
    """Loss and its parts against training tokens, a line per seed; None when the row was not trained."""
    lines = row_curves(row)
    if not lines:
        return None
    seeds = " ".join(f"#{seed.seed}" for seed in row.seeds if seed.curve)

    def panel(at: Axes) -> None:
        for line in lines:
            place, first = PARTS.index(line["part"]), line["seed"] == lines[0]["seed"]
            style: dict[str, Any] = {"color": "#1a1c20" if place == 0 else OKABE_ITO[place], "linestyle": DASHES[place]}
            at.plot(*_gaps(line), label=line["part"] if first else None, linewidth=1.3, **style)
        at.set_title(
            _plain(f"{row.label}, {row.budget or 'no budget'}, {row.recipe}, row {row.id} {seeds}"), loc="left"
        )
        _scale_loss(at, lines)

    return _draw([panel], form)


def _pareto_panels(board: Board, teacher: str, axis: str) -> Iterator[Panel]:
    palette = colours(board)
    columns = columns_of(board, teacher)
    names = titles(columns)
    tabs = [tab for tab in board.tabs if tab.teacher == teacher]
    references = list({row.id: row for tab in tabs for row in tab.references}.values())
    for column in columns:
        groups = {
            key: [row for row in rows if row.counts and axis in axes(row) and drawable(row, column)]
            for key, rows in recipes(board, teacher).items()
        }
        if any(groups.values()):
            yield _pareto_panel(f"{teacher}: {names[column.key]}", column, groups, references, axis, palette)


def _pareto_panel(
    title: str,
    column: Column,
    groups: Mapping[str, Sequence[Row]],
    references: Sequence[Row],
    axis: str,
    palette: Mapping[str, int],
) -> Panel:
    def panel(at: Axes) -> None:
        several = sum(bool(rows) for rows in groups.values()) > 1
        for place, (recipe, rows) in enumerate(groups.items()):
            on_front = set(fronts(rows, column)[axis])
            line = sorted((axes(row)[axis], row.scores[column.key].summary.value) for row in rows if row.id in on_front)
            at.step(
                [x for x, _ in line], [y for _, y in line], where="post",
                color="#5b616c", linewidth=0.9, linestyle=DASHES[place % 4],
            )  # fmt: skip
            for label in sorted({row.label for row in rows}):
                own = [row for row in rows if row.label == label]
                _points(at, own, column, axis, palette[label], f"{label} · {recipe}" if several else label)
        for row in (row for row in references if drawable(row, column)):
            at.axhline(row.scores[column.key].summary.value, color="#5b616c", linewidth=0.9, linestyle=(0, (6, 4)))
            place_of = (0.99, row.scores[column.key].summary.value)
            at.annotate(_plain(row.label), place_of, xycoords=at.get_yaxis_transform(), ha="right", va="bottom")
        at.set_title(_plain(title), loc="left")
        at.set_xscale("log")
        at.set_yscale("log" if is_log(column) else "linear")
        at.set_xlabel(AXES[axis])
        at.set_ylabel(_plain(f"{column.metric} {column.arrow}"))
        _readable(at)

    return panel


def _points(at: Axes, rows: Sequence[Row], column: Column, axis: str, number: int, label: str) -> None:
    found = [row.scores[column.key].summary for row in rows]
    below = [0.0 if s.low is None else max(0.0, s.value - s.low) for s in found]
    above = [0.0 if s.high is None else max(0.0, s.high - s.value) for s in found]
    at.errorbar(
        [axes(row)[axis] for row in rows], [s.value for s in found], yerr=[below, above], label=_plain(label),
        fmt=MARKERS[shape(number)], color=OKABE_ITO[number % len(OKABE_ITO)], markeredgecolor="#1a1c20",
        markeredgewidth=0.5, markersize=6, elinewidth=1, capsize=2,
    )  # fmt: skip


def _curves_panel(tab: Tab, palette: Mapping[str, int]) -> Panel:
    def panel(at: Axes) -> None:
        lines = []
        rows = [row for group in tab.groups for row in group.rows if any(seed.curve for seed in row.seeds)]
        for place, row in enumerate(rows[:MOST_ROWS]):
            for order, line in enumerate(each for each in row_curves(row) if each["part"] == "loss"):
                style: dict[str, Any] = {
                    "color": "#5b616c" if row.stale else OKABE_ITO[palette[row.label] % len(OKABE_ITO)],
                    "linestyle": DASHES[place % 4],
                }
                label = f"{row.label} (stale)" if row.stale else row.label
                at.plot(*_gaps(line), label=None if order else _plain(label), linewidth=1, **style)
                lines.append(line)
        at.set_title(_plain(heading(tab)) + _left_out(rows), loc="left")
        _scale_loss(at, lines)

    return panel


def _cost_panel(tab: Tab) -> Panel:
    def panel(at: Axes) -> None:
        rows = tab.rows[:MOST_ROWS]
        start = [0.0] * len(rows)
        for number, stage in enumerate(stages(rows)):
            taken = [row.cost.worker_s_by_stage.get(stage, 0.0) for row in rows]
            style: dict[str, Any] = {"color": OKABE_ITO[number % len(OKABE_ITO)], "hatch": HATCHES[shape(number)]}
            at.barh(range(len(rows)), taken, left=start, label=_plain(stage), edgecolor="white", linewidth=0, **style)
            start = [a + b for a, b in zip(start, taken, strict=True)]
        at.set_yticks(range(len(rows)), [_plain(f"{row.label} ({row.id})") for row in rows])
        at.invert_yaxis()
        at.grid(visible=False, axis="y")
        at.set_title(_plain(heading(tab)) + _left_out(tab.rows), loc="left")
        at.set_xlabel("worker-seconds, all seeds and attempts")

    return panel


def _left_out(rows: Sequence[Row]) -> str:
    return f", {MOST_ROWS} of {len(rows)} rows" if len(rows) > MOST_ROWS else ""


def _scale_loss(at: Axes, lines: Sequence[Mapping[str, Any]]) -> None:
    """A logarithmic scale where all values are above zero and the largest is 20 times the smallest or more."""
    values = [value for line in lines for value in line["y"] if value is not None]
    if values and min(values) > 0 and max(values) >= 20 * min(values):
        at.set_yscale("log")
    at.set_xlabel("training tokens")
    at.set_ylabel("loss")
    at.xaxis.set_major_formatter(_si())


def _gaps(line: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """A missing value as NaN, where the line breaks."""
    x, y = ([float("nan") if value is None else value for value in line[name]] for name in "xy")
    return x, y


def _readable(at: Axes) -> None:
    """Tick labels as plain numbers, also between powers of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    at.xaxis.set_major_formatter(_si())
    at.xaxis.set_minor_formatter(_si())
    at.tick_params(axis="x", which="both", labelrotation=30)
    if at.get_yscale() == "log":
        low, high = at.get_ylim()
        wide = high > 20 * low
        at.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if wide else range(1, 10)))
        at.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        at.yaxis.set_minor_formatter(NullFormatter())


def _si() -> Any:
    from matplotlib.ticker import EngFormatter

    return EngFormatter(sep="")


def _draw(panels: Sequence[Panel], form: str) -> bytes:
    """The panels below one another, each with its legend to the right."""
    buffer = io.BytesIO()
    with _settings():
        from matplotlib.figure import Figure

        across = 1 if len(panels) < 3 else 2
        size = (7.2 * across, 3.7 * ceil(len(panels) / across))
        whole: Figure = Figure(figsize=size, layout="constrained", dpi=160)
        for place, panel in enumerate(panels):
            at = whole.add_subplot(ceil(len(panels) / across), across, place + 1)
            panel(at)
            if at.get_legend_handles_labels()[1]:
                at.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
        date = {"Date": None} if form == "svg" else {"CreationDate": None} if form == "pdf" else {}
        whole.savefig(buffer, format=form, metadata=date)
    return buffer.getvalue()


@contextmanager
def _settings() -> Iterator[None]:
    """Our look, and silence where a font lacks a letter of a record."""
    import matplotlib

    with warnings.catch_warnings(), matplotlib.rc_context(SETTINGS):  # type: ignore[arg-type]
        warnings.filterwarnings("ignore", message=".*[Gg]lyph")
        warnings.filterwarnings("ignore", message="constrained_layout not applied")
        yield


def _plain(text: str) -> str:
    """A text in one short line; letters that cannot be shown become spaces."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    return shown if len(shown) <= 80 else shown[:79] + "…"


def _teachers(board: Board) -> list[str]:
    return sorted({tab.teacher for tab in board.tabs})
