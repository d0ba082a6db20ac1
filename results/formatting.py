"""Numbers and names as a reader sees them; shared by every rendering."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, expm1, floor, isfinite, log10

from results.items import scale_of
from results.model import Board, Column, Gain, Row, Score, Tab, Twin
from results.statistics import SIGNIFICANCE, Summary

LEGEND = (
    "a → b = before and after training. "
    "Intervals are 95 % and cover training seeds and test items unless marked: i = items only (one seed), "
    "s = seeds only (no items stored), · = no interval. "
    "#a–b is the range of ranks the data allow (paired tests, Holm-corrected); overlapping ranges may be ties; "
    "(63 %) = the best in 63 % of resamples of items and seeds. "
    "◆ = on the Pareto front: nothing of at most its size is better. Recipe kinds are not ranked against each other."
)
GAINS_LEGEND = (
    " Gains: the row against its control, on the same seeds and items; positive is better, a perplexity's is "
    "ln(control / row). Distillation: over the same student trained by cross-entropy alone. Decomposition: over the "
    "same shapes from random factors. * = significant at 5 %, Holm-corrected over the column's gains."
)
LATENCY_LEGEND = (
    " Latency: ms per generated token at batch 1, of the student and of its dense equivalent; ± is the noise, what two "
    "measurements of one model differ by on that machine, and ≈ a difference within it."
)
VERIFIED_LEGEND = (
    " ✓ beside a row: its checkpoints were evaluated again and the numbers hold; ✗: they do not (weighin show ROW); "
    "neither: they are claimed, or were not checked in full."
)
MARKS = {"seeds and items": "", "items only": " i", "seeds only": " s"}


def digits(summary: Summary) -> int:
    """Decimals that show three significant digits of the interval's half-width, or four of the value without one."""
    width = 0.0 if summary.low is None or summary.high is None else (summary.high - summary.low) / 2
    scale = width / 100 if width > 0 else abs(summary.value) / 1000
    return min(6, max(0, -floor(log10(scale)))) if isfinite(scale) and scale > 0 else 2


def legend(board: Board) -> str:
    """What the marks mean, those of the latency and of the gains where there are some."""
    timed = any(row.speed for tab in board.tabs for row in tab.rows)
    gains = any(tab.twins for tab in board.tabs)
    marked = any(row.verified and row.verified.mark for tab in board.tabs for row in tab.rows)
    more = ((timed, LATENCY_LEGEND), (gains, GAINS_LEGEND), (marked, VERIFIED_LEGEND))
    return LEGEND + "".join(text for shown, text in more if shown)


def value(summary: Summary) -> str:
    """`32.41`"""
    return _signed(f"{summary.value:.{digits(summary)}f}") if isfinite(summary.value) else str(summary.value)


def interval(summary: Summary) -> str:
    """`31.98–32.85 i`; the letter says what the interval leaves out."""
    if summary.low is None or summary.high is None:
        return "·"
    places = digits(summary)
    return _signed(f"{summary.low:.{places}f}–{summary.high:.{places}f}{MARKS.get(summary.basis, '')}")


def _signed(text: str) -> str:
    """With a true minus sign, which an en dash beside it does not hide."""
    return text.replace("-", "−")


def ranks(score: Score) -> str:
    """`#1–3 (63 %)`, `#2`, or nothing for a row that is not ranked; the share only where it may be the best."""
    if score.rank is None:
        return ""
    best, worst = score.rank
    if best == worst:
        return f"#{best}"
    first = f" ({100 * score.best:.0f} %)" if best == 1 and score.best is not None else ""
    return f"#{best}–{worst}{first}"


def cell(row: Row, column: Column) -> str:
    """One cell of a text table: value before training, value, interval, rank range and Pareto mark."""
    score = row.scores.get(column.key)
    if score is None:
        return "–"
    front = "◆" if score.pareto else ""
    parts = [before(score), value(score.summary), f"[{interval(score.summary)}]", ranks(score), front]
    return " ".join(part for part in parts if part)


def gain(found: Gain) -> str:
    """`+0.034 [+0.021 to +0.047 i] *`: a gain, its interval, and whether it is significant after Holm's correction."""
    if not isfinite(found.value):
        return str(found.value)
    summary = Summary(found.value, found.low, found.high, found.basis, 0, 0)
    places = digits(summary)
    ends = "·"
    if found.low is not None and found.high is not None:
        ends = f"{found.low:+.{places}f} to {found.high:+.{places}f}{MARKS.get(found.basis, '')}"
    mark = " *" if found.p_holm is not None and found.p_holm < SIGNIFICANCE else ""
    return _signed(f"{found.value:+.{places}f} [{ends}]{mark}")


def gain_cell(twin: Twin, column: Column) -> str:
    """A gain, or how the control ended where it did not complete, or nothing to compare."""
    found = twin.gains.get(column.key)
    return gain(found) if found else "–" if twin.row.status == "complete" else twin.row.status


def resolution(tab: Tab) -> list[str]:
    """One line per column: the smallest difference that it can show, and what two seeds of one row differ by."""
    names = titles(tab.columns)
    lines = []
    for column in tab.columns:
        found = tab.detectable.get(column.key)
        if found is None:
            continue
        parts = []
        if found.single is not None and found.corrected is not None:
            pairs = f", {_step(found.corrected, column)} after Holm over {found.pairs} pairs" if found.pairs > 1 else ""
            parts.append(f"smallest difference it can show: {_step(found.single, column)}{pairs}")
        if found.noise is not None:
            parts.append(f"two seeds of one row differ by up to {_step(found.noise, column)}")
        lines.append(f"{names[column.key]}: {'; '.join(parts)}")
    return lines


def _step(difference: float, column: Column) -> str:
    """`0.021`, or of a perplexity, whose differences are ratios, `2.1 %`."""
    if scale_of(column.metric, column.protocol) != "log":
        return f"{difference:.2g}"
    return f"{100 * expm1(difference):.2g} %" if difference < 1 else f"a factor of {exp(difference):.3g}"


def before(score: Score) -> str:
    """`376.5 →`, or nothing where the metric was not measured before training."""
    return f"{value(score.before)} →" if score.before else ""


def count(number: float) -> str:
    """`124.4M`: three to four significant digits and a suffix."""
    for limit, suffix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= limit:
            return f"{number / limit:.4g}{suffix}"
    return f"{number:.4g}"


def duration(seconds: float) -> str:
    """`12 s`, `3.5 min`, `2.1 h`."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"


def titles(columns: Sequence[Column]) -> dict[str, str]:
    """Column key -> heading: protocol and metric, and the end of the data's fingerprint where two differ in it."""
    plain = {column.key: f"{column.protocol} {column.metric}" for column in columns}
    return {
        column.key: plain[column.key]
        + (f" @{column.data[-8:]}" if list(plain.values()).count(plain[column.key]) > 1 else "")
        for column in columns
    }


def status(row: Row) -> str:
    """`complete`, or the status with its reason; of a stale row why it is, and what refreshes it."""
    told = f"{row.status}: {row.reason}" if row.reason else row.status
    return f"{told}; stale: {row.stale}" if row.stale else told


def seeds(row: Row) -> str:
    """`3`, or `7/10` where seeds lack a result."""
    return str(len(row.seeds)) if row.num_complete == len(row.seeds) else f"{row.num_complete}/{len(row.seeds)}"
