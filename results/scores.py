"""From a row's records to its summaries, one per column."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import copysign, inf, isfinite

from results.averages import MEMBERS, averages
from results.items import Sample, sample, scale_of
from results.model import Column, Score
from results.plain_text import plain
from results.reader import Reader, home
from results.record import Measured, Record
from results.statistics import summarise

LARGEST = 1e50
"""Of a metric that is averaged as it is."""


@dataclass(frozen=True)
class Evidence:
    """A row's samples: column -> seed -> sample, with the recorded values beside them."""

    samples: Mapping[Column, Mapping[int, Sample]]
    values: Mapping[Column, Mapping[int, float]]


def column_of(measured: Measured) -> Column:
    """The column that a measurement belongs to."""
    return Column(
        protocol=plain(measured.protocol),
        metric=plain(measured.metric),
        data=plain(measured.data),
        settings=plain(measured.settings),
        unit=plain(measured.unit),
        higher_is_better=measured.higher_is_better,
        when=measured.when,
        main=measured.main,
    )


def gather(records: Iterable[Record], reader: Reader, *, main_only: bool) -> Evidence:
    """Read the measurements of one row's complete records, and form the averages over tasks that they allow.

    `main_only` leaves out the other metrics, and their items unread where no average needs them.
    """
    samples: dict[Column, dict[int, Sample]] = {}
    values: dict[Column, dict[int, float]] = {}
    for record in records:
        if record.status != "complete":
            continue
        files = home(reader, record)
        for measured in record.measured:
            if measured.main or not main_only or (measured.protocol, measured.metric) in MEMBERS:
                column, seed = column_of(measured), record.cell.seed
                samples.setdefault(column, {})[seed] = sample(_countable(measured), files)
                values.setdefault(column, {})[seed] = measured.value
    for column, by_seed in averages(samples).items():
        samples[column] = by_seed
        values[column] = {seed: each.value for seed, each in by_seed.items()}
    shown = {column: by_seed for column, by_seed in samples.items() if column.main or not main_only}
    return Evidence(shown, {column: values[column] for column in shown})


def _countable(measured: Measured) -> Measured:
    """A measurement whose square has a square: what is larger than `LARGEST` counts as infinite, is never ranked."""
    value = measured.value
    if not isfinite(value) or abs(value) <= LARGEST or scale_of(measured.metric) == "log":
        return measured
    return measured.model_copy(update={"value": copysign(inf, value)})


def score(evidence: Evidence) -> dict[str, Score]:
    """Summaries of every final column, with the same metric before training beside it; not ranked yet."""
    before = {
        (column.protocol, column.metric, column.data): summarise(list(by_seed.values()))
        for column, by_seed in evidence.samples.items()
        if column.when == "before_training"
    }
    return {
        column.key: Score(
            summary=summarise(list(by_seed.values())),
            by_seed=evidence.values[column],
            before=before.get((column.protocol, column.metric, column.data)),
        )
        for column, by_seed in evidence.samples.items()
        if column.when == "final"
    }
