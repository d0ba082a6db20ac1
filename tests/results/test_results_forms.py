"""The board for papers and READMEs."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from results.badge import badge, leaders
from results.board import board
from results.latex import escape_latex, latex
from results.model import Board

EVIL = r"\input{/etc/passwd} 50% $x^2$ a_b & #1 ~ {c} <d> |e| --f ^^41"


def rows_of(table: str) -> list[list[str]]:
    """The cells of each line of a LaTeX tabular."""
    return [
        line.removesuffix(r" \\").split(" & ") for line in table.splitlines() if line.endswith(r"\\") and " & " in line
    ]


def test_every_tab_is_a_table_with_a_line_per_row(finished: Any) -> None:
    found = board(finished)
    tables = latex(found).split(r"\begin{table*}")[1:]
    assert len(tables) == len(found.tabs)
    for tab, table in zip(found.tabs, tables, strict=True):
        head, *lines = rows_of(table)
        assert len(lines) == len(tab.rows)
        assert {len(line) for line in lines} == {len(head)}
        assert len(re.findall(r"\\begin", table)) + 1 == len(re.findall(r"\\end", table))
        assert [rule in table for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [True] * 3


def test_bold_are_the_rows_that_may_be_first_and_a_failure_is_told(finished: Any) -> None:
    tab = board(finished).tabs[0]
    lines = {cells[0]: cells[1] for cells in rows_of(latex(board(finished)).split(r"\begin{table*}")[1])}
    for row in tab.rows:
        score = row.scores.get(tab.columns[0].key)
        name = escape_latex(row.label)
        assert (r"\textbf" in lines[name]) == bool(score and score.rank and score.rank[0] == 1)
    assert "[" in lines["kronecker"]
    assert lines[r"tensor\_train"] == "failed"


def test_latex_reads_no_text_as_a_command() -> None:
    escaped = escape_latex(EVIL)
    plain = re.sub(
        r"\\(textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar)\{\}|\\[&%$#_{}]", "", escaped
    )
    assert not re.search(r"[\\%$&#_~^]", plain)
    assert "--" not in escaped
    assert escape_latex("a\nb\x1b[31m") == "a b [31m"


def test_a_badge_has_the_leaders_of_each_group_and_nothing_else(finished: Any) -> None:
    found = board(finished)
    lines = badge(found).splitlines()
    expected = [row.label for tab in found.tabs for g in tab.groups for row in leaders(g, tab.columns[0])]
    assert [re.sub(r"\\", "", line.split(" | ")[3]) for line in lines[2:]] == expected
    assert len({line.count(" | ") for line in lines}) == 1


def test_a_stale_row_leads_nothing(finished: Any) -> None:
    (group, *_) = (tab := board(finished).tabs[0]).groups
    first = leaders(group, tab.columns[0])[0]
    rows = [replace(row, stale="the protocol has a newer version") if row is first else row for row in group.rows]
    assert first.id not in {row.id for row in leaders(replace(group, rows=rows), tab.columns[0])}


def test_where_all_is_stale_the_badge_says_so(finished: Any) -> None:
    tab = board(finished).tabs[0]
    groups = [replace(group, rows=[replace(row, stale="old") for row in group.rows]) for group in tab.groups]
    lines = badge(Board(None, (replace(tab, groups=groups),))).splitlines()[2:]
    assert ["no row that is up to date" in line for line in lines] == [True, True]


@pytest.mark.parametrize("form", [latex, badge])
def test_an_empty_board_says_what_to_run(form: Any, reader: Any) -> None:
    assert "weighin run" in form(board(reader))
