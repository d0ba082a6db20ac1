"""The check that the board can compute a task's metrics again from its items, as intervals and pairings need it."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from results.items import sample
from results.record import Measured, Record
from tasks.conformance import Bench, Check
from tasks.conformance.classifying import guess
from tasks.interface import Classification

PATH = "items.parquet"


class Items:
    """A store that holds one table of items."""

    def __init__(self, columns: Mapping[str, Sequence[Any]]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        stream = io.BytesIO()
        pq.write_table(pa.table(dict(columns)), stream)
        self._data = stream.getvalue()

    def records(self) -> list[Record]:
        return []

    def read_bytes(self, name: str, /) -> bytes:
        return self._data


def board_computes_it_again(bench: Bench) -> Iterator[str]:
    metrics, items = _measured(bench)
    if not items:
        yield "it gives no items, so that its values have no intervals"
        return
    store = Items(items)
    for metric in bench.task.metrics:
        measured = Measured(
            protocol=bench.task.name,
            metric=metric.name,
            value=metrics[metric.name],
            unit=metric.unit,
            higher_is_better=metric.higher_is_better,
            main=True,
            data="none",
            items_path=PATH,
            stage_key="none",
        )
        if missing := sample(measured, store).missing:
            yield f"the board does not find {metric.name} = {metrics[metric.name]:.6g} in the items: {missing}"


def _measured(bench: Bench) -> tuple[Mapping[str, float], Mapping[str, Sequence[Any]]]:
    """Metrics and items: of a protocol its own, of a classification those of guesses, as fine-tuning stores them."""
    if not isinstance(bench.task, Classification):
        return bench.measured.metrics, bench.measured.items
    predictions, labels = guess(bench), list(bench.validation.labels)
    items: dict[str, Sequence[Any]] = {
        "item": [str(number) for number in range(len(labels))],
        "prediction": predictions,
        "label": labels,
        "correct": [float(p == label) for p, label in zip(predictions, labels, strict=True)],
    }
    return bench.classification.score(predictions, labels), items


ITEMS_CHECK = Check(title="the board computes it again from the items", run=board_computes_it_again)
