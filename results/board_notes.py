"""What a board says beside its rows: files that could not be read, and items that do not fit their record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from results.model import Tab
from results.reader import Rejected

SHOWN = 20
"""Names in one note; the command line and the JSON have all."""
UNPROVEN = ("items file is damaged", "items file is gone", "items do not reproduce the value")
"""Notes of `results.items` on measurements whose record and artifact disagree."""


def rejection(rejected: Sequence[Rejected]) -> Iterator[str]:
    """One note on the files that are not shown, where there are some."""
    if rejected:
        what = "file is no readable record" if len(rejected) == 1 else "files are no readable records"
        yield f"{len(rejected)} {what}: {_listed(list(map(str, rejected)))}"


def damage(tab: Tab) -> Iterator[str]:
    """A note per way in which measurements disagree with their items: their intervals are over seeds alone."""
    for problem in UNPROVEN:
        found = sorted(
            f"{row.label} ({row.id}) {column.protocol} {column.metric}"
            for row in tab.rows
            for column in tab.columns
            if (score := row.scores.get(column.key)) is not None and score.summary.note == problem
        )
        if found:
            yield f"{problem}, intervals without items: {_listed(found)}"


def _listed(names: Sequence[str]) -> str:
    more = f"; and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return "; ".join(names[:SHOWN]) + more
