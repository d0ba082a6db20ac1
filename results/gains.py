"""What a row gains over its controls: from distillation over the twin without a teacher, from the decomposition over
the twin with random factors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from results.model import GAIN_FROM, Column, Gain, Row, Twin
from results.record import Control
from results.scores import Evidence
from results.statistics import compare, holm


def beside(
    rows: Iterable[Row], controls: Sequence[Row], columns: Iterable[Column], evidence: Mapping[str, Evidence]
) -> tuple[Twin, ...]:
    """The controls of `rows`, in the order of the rows and of `GAIN_FROM`, with the gains over them.

    A gain is the paired difference of the row and its control over the seeds and items that both have, turned so that
    positive is better. P-values are adjusted by Holm's rule over all gains of a column.
    """
    pairs = [
        (row, each, each.control)
        for row in rows
        for kind in GAIN_FROM
        for each in controls
        if each.control == Control(kind=kind, of=row.id)
    ]
    gains: dict[str, dict[str, Gain]] = {control.id: {} for _, control, _ in pairs}
    for column in columns:
        found = {control.id: gain for row, control, _ in pairs if (gain := _gain(row, control, column, evidence))}
        for name, gain in _adjust(found).items():
            gains[name][column.key] = gain
    return tuple(Twin(row=control, control=what, gains=gains[control.id]) for _, control, what in pairs)


def _gain(row: Row, control: Row, column: Column, evidence: Mapping[str, Evidence]) -> Gain | None:
    """None where one of them is not complete, or was not measured by this column."""
    ours, theirs = (evidence[each.id].samples.get(column) for each in (row, control))
    if ours is None or theirs is None or (row.status, control.status) != ("complete", "complete"):
        return None
    found = compare(ours, theirs) if column.higher_is_better else compare(theirs, ours)
    p_value = None if row.stale or control.stale else found.p_value
    return Gain(found.difference, found.low, found.high, p_value, None, found.basis)


def _adjust(gains: Mapping[str, Gain]) -> dict[str, Gain]:
    adjusted = iter(holm([gain.p_value for gain in gains.values() if gain.p_value is not None]))
    return {
        name: gain if gain.p_value is None else replace(gain, p_holm=next(adjusted)) for name, gain in gains.items()
    }
