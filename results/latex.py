r"""The board as LaTeX tables for papers: booktabs, with intervals and rank ranges; needs \usepackage{booktabs}."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from results.formatting import count, duration, gain, interval, legend, ranks, titles, value
from results.model import Board, Column, Row, Score, Tab
from results.plain_text import one_line
from results.table import heading

SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "–": "--",
    "−": "$-$",
    "·": r"$\cdot$",
    "±": r"$\pm$",
    "≈": r"$\approx$",
    "→": r"$\rightarrow$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "◆": r"$\blacklozenge$",
    "…": r"\ldots{}",
}
"""What LaTeX would read as a command, and the marks of a board, which its default fonts lack."""
HEAD = r"% \usepackage{booktabs,amssymb,textcomp}"
BEST = r"\textbf{%s}"


def latex(board: Board) -> str:
    """A `table*` per tab, and one for its gains. Bold: no row of its group is significantly better."""
    if board.message:
        return f"% {escape_latex(board.message)}\n"
    parts = [part for tab in board.tabs for part in (_tab(tab), _gains(tab)) if part]
    return "\n\n".join([HEAD, *parts]) + f"\n\n% {' '.join(legend(board).split())}\n"


def escape_latex(text: str) -> str:
    """One line that LaTeX sets as it stands: no commands, no comments, no mathematics."""
    escaped = "".join(SPECIAL.get(letter, letter) for letter in one_line(text).replace("--", "-\0-"))
    return escaped.replace("\0", "{}")


def _tab(tab: Tab) -> str:
    names = titles(tab.columns)
    head = ["method", *(f"{names[column.key]} {column.arrow}" for column in tab.columns)]
    head += ["params", "MACs", "cost", "seeds"]
    lines = [_line(map_escape(head))]
    for recipe, rows in tab.sections:
        lines += [r"\midrule", rf"\multicolumn{{{len(head)}}}{{l}}{{\emph{{{escape_latex(recipe)}}}}} \\"]
        lines += [_line(_row(row, tab.columns)) for row in rows]
    notes = "".join(f" {escape_latex(note)}." for note in tab.notes)
    note = r" Brackets: 95\,\% intervals. \#: ranks that the data allow. $\blacklozenge$: on the Pareto front."
    return _table(f"{escape_latex(heading(tab))}.{note}{notes}", "l" + "r" * (len(head) - 1), lines)


def _row(row: Row, columns: Sequence[Column]) -> list[str]:
    params = f"{count(row.size.params)} ({row.size.params_fraction:.3f})" if row.size else "–"
    macs = count(row.size.macs_per_token) if row.size else "–"
    label = f"{row.label} (stale)" if row.stale else row.label
    scores = [_score(row, row.scores.get(column.key)) for column in columns]
    return [escape_latex(label), *scores, *map_escape([params, macs, duration(row.cost.worker_s), str(len(row.seeds))])]


def _score(row: Row, score: Score | None) -> str:
    if score is None or not isfinite(score.summary.value):
        return escape_latex("–" if row.status == "complete" else row.status)
    shown = escape_latex(value(score.summary))
    if row.counts and score.rank and score.rank[0] == 1:
        shown = BEST % shown
    rest = f"[{interval(score.summary)}] {ranks(score)} {'◆' if score.pareto else ''}"
    return f"{shown} {escape_latex(rest)}".strip()


def _gains(tab: Tab) -> str:
    if not tab.twins:
        return ""
    names = titles(tab.columns)
    head = ["method", "gain from", *(names[column.key] for column in tab.columns)]
    lines = [_line(map_escape(head)), r"\midrule"]
    for row in tab.rows:
        for twin in tab.twins_of(row):
            found = [twin.gains.get(column.key) for column in tab.columns]
            cells = [gain(each) if each else twin.row.status for each in found]
            label = f"{row.label} (stale)" if row.stale or twin.row.stale else row.label
            lines.append(_line(map_escape([label, twin.gain_from, *cells])))
    note = "Positive is better; a perplexity's is ln(control / row). *: significant at 5 %, Holm-corrected."
    return _table(escape_latex(f"{heading(tab)}: gains over controls. {note}"), "ll" + "r" * len(tab.columns), lines)


def map_escape(texts: Sequence[str]) -> list[str]:
    """Every text escaped."""
    return [escape_latex(text) for text in texts]


def _line(cells: Sequence[str]) -> str:
    # A cell that starts with a bracket or a star would be taken for an argument of the line before.
    return " & ".join(f"{{}}{cell}" if cell[:1] in ("[", "*") else cell for cell in cells) + r" \\"


def _table(caption: str, align: str, lines: Sequence[str]) -> str:
    body = "\n".join(lines)
    return (
        f"\\begin{{table*}}\n\\caption{{{caption}}}\n\\centering\\small\n\\begin{{tabular}}{{{align}}}\n\\toprule\n"
        f"{body}\n\\bottomrule\n\\end{{tabular}}\n\\end{{table*}}"
    )
