"""What was reported, beside what was measured: the lines of `reported.yaml` that belong to a tab.

A tab has those of its own teacher: one that has a published teacher's name, and its size where that is known. Of them
it shows the teacher's and those of methods that have a row on the tab. Nothing here is ranked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from results.model import Row, Tab
from results.reported import Collection, Match, Reported, collection

REFERENCE = "identity"
MATCHES: Mapping[Match, str] = {"same": "same protocol", "unknown": "unknown protocol", "other": "other protocol"}
"""In the order of the lines."""
RULES = {
    "unique": "each once, a tied matrix once",
    "without_output_matrix": "without an untied output matrix",
    "scales_folded": "scalars of terms folded into their factors",
}
"""How papers count, by the name that `weighin methods --presets` gives the rule."""


@dataclass(frozen=True, kw_only=True)
class Against:
    """A measured row that a reported number is put beside, in the unit of that number."""

    row: str
    column: str
    """Its key."""
    label: str
    value: float
    low: float | None
    high: float | None
    same_size: bool
    """The row has as many parameters as the reported model, by our count."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A reported number on a tab, and the tab's rows of its method in the protocol that it names."""

    reported: Reported
    measured: tuple[Against, ...]

    @property
    def match(self) -> str:
        """`same protocol`, `unknown protocol` or `other protocol`."""
        return MATCHES[self.reported.column.match]


def claims(tab: Tab, known: Collection | None = None) -> tuple[Claim, ...]:
    """The reported numbers of a tab: of the same protocol first, then those that something stands beside."""
    known = known or collection()
    teacher = _teacher(tab, known)
    methods = {REFERENCE, *(row.method for row in tab.rows)}
    found = [
        Claim(reported=each, measured=tuple(_against(each, tab)))
        for each in known.numbers
        if each.model.teacher == teacher and each.model.method in methods
    ]
    order = list(MATCHES)
    return tuple(sorted(found, key=lambda claim: (order.index(claim.reported.column.match), not claim.measured)))


def _teacher(tab: Tab, known: Collection) -> str | None:
    """The key of the published teacher that the tab's is; a measured one of another size is none."""
    name = tab.teacher.lower().replace("/", "-").replace("_", "-")
    key = next((key for key, teacher in known.teachers.items() if name in teacher.aliases), None)
    sizes = {row.size.params for row in tab.references if row.method == REFERENCE and row.size}
    if key is None or known.teachers[key].params is None or not sizes:
        return key
    return key if sizes == {known.teachers[key].params} else None


def _against(reported: Reported, tab: Tab) -> Iterator[Against]:
    columns = [
        column
        for column in tab.columns
        if (column.protocol, column.metric) == (reported.column.protocol, reported.column.metric)
    ]
    factor = 100.0 if reported.unit == "percent" else 1.0
    for column in columns:
        for row in tab.rows:
            score = row.scores.get(column.key)
            if row.method != reported.model.method or score is None or not isfinite(score.summary.value):
                continue
            low, high = (None if end is None else factor * end for end in (score.summary.low, score.summary.high))
            yield Against(
                row=row.id,
                column=column.key,
                label=row.label,
                value=factor * score.summary.value,
                low=low,
                high=high,
                same_size=_same_size(reported, row),
            )


def _same_size(reported: Reported, row: Row) -> bool:
    return row.size is not None and row.size.params == reported.model.params


def reported_json(each: Reported) -> dict[str, Any]:
    """A reported number and its model."""
    model, column = each.model, each.column
    return {
        "model": model.name,
        "teacher": model.teacher,
        "method": model.method,
        "fields": dict(model.fields),
        "measure": each.what,
        "metric": column.metric,
        "value": each.value,
        "unit": each.unit,
        "higher_is_better": each.higher_is_better,
        "match": column.match,
        "protocol": column.protocol,
        "certainty": each.certainty,
        "citation": each.citation,
        "own": each.own,
        "params": {"printed": model.printed, "rule": model.rule, "paper": model.params_paper, "ours": model.params},
        "notes": each.notes,
    }


def claim_json(claim: Claim) -> dict[str, Any]:
    """A reported number with what was measured beside it."""
    return {**reported_json(claim.reported), "measured": [asdict(each) for each in claim.measured]}
