"""A small Markdown table for a README: per budget and recipe the rows that may be the best, nothing else."""

from __future__ import annotations

from results.formatting import count, duration, interval, ranks, titles, value
from results.model import Board, Column, Group, Row, Tab
from results.table import escape_markdown, heading, markdown_table

MOST = 3
"""Rows per group; of more that may be first, the number is told."""


def badge(board: Board) -> str:
    """One table of the leading rows by the first column of each tab; as the page's answer in short."""
    if board.message:
        return escape_markdown(board.message) + "\n"
    head = ["budget", "recipe", "metric", "best", "value (95 %)", "rank", "params", "cost"]
    align = ["---"] * 4 + ["---:"] * 4
    lines = [line for tab in board.tabs for group in tab.groups for line in _lines(tab, group)]
    return markdown_table([head, align, *lines]) + "\n"


def _lines(tab: Tab, group: Group) -> list[list[str]]:
    if not tab.columns:
        return []
    column = tab.columns[0]
    place = [heading(tab), group.recipe, f"{titles(tab.columns)[column.key]} {column.arrow}"]
    found = leaders(group, column)
    lines = []
    for row in found[:MOST]:
        score = row.scores[column.key]
        shown = f"{value(score.summary)} [{interval(score.summary)}]"
        params = count(row.size.params) if row.size else "–"
        lines.append([*place, row.label, shown, ranks(score), params, duration(row.cost.worker_s)])
    if not found and any(row.stale for row in group.rows):
        lines.append([*place, "no row that is up to date", "", "", "", ""])
    if len(found) > MOST:
        lines.append([*place, f"{len(found) - MOST} more that may be as good", "", "", "", ""])
    return lines


def leaders(group: Group, column: Column) -> list[Row]:
    """The rows that no other is significantly better than, the best mean first; stale ones left out."""
    sign = -1 if column.higher_is_better else 1
    ranked = [(score, row) for row in group.rows if not row.stale and (score := row.scores.get(column.key))]
    first = [(sign * score.summary.value, row.id, row) for score, row in ranked if score.rank and score.rank[0] == 1]
    return [row for _, _, row in sorted(first, key=lambda each: each[:2])]
