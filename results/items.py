"""One measurement of one seed, together with the items it was made of."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from results.blocks import places
from results.influence import Columns, Floats, Reading, estimate, readings
from results.reader import Reader
from results.record import Measured

Scale = Literal["linear", "log", "proportion"]

DAMAGED = "items file is damaged"
UNUSABLE = (ArithmeticError, AttributeError, LookupError, NotImplementedError, OSError, TypeError, ValueError)
"""What reading and counting raise of a file that holds other than items: any table may stand there."""
AGREEMENT = 1e-5
"""Items explain a recorded value when they reproduce it to this relative error."""


@dataclass(frozen=True)
class Sample:
    """A value on the scale it is compared on, and what each item contributed.

    `items` and `influence_N` are aligned; both are None when the items are absent, and `missing` says why.
    """

    value: float
    scale: Scale = "linear"
    items: NDArray[Any] | None = None
    influence_N: Floats | None = None
    missing: str = ""
    place_N: NDArray[np.int64] | None = None
    """Where each item begins in its text, when the items are windows of one; else they are independent."""


def scale_of(metric: str, protocol: str = "") -> Scale:
    """Perplexities are compared as log perplexity: equal ratios are equal differences. Overall scores have none."""
    if protocol.startswith("overall."):
        return "linear"
    return "log" if "perplexity" in metric or "ppl" in metric else "linear"


def to_scale(value: float, scale: Scale) -> float:
    """The number that is averaged and compared; NaN where the logarithm does not exist."""
    if scale != "log":
        return value
    return float(np.log(value)) if value > 0 else float("nan")


def from_scale(value: float, scale: Scale) -> float:
    """Back to the metric's own unit."""
    return float(np.exp(value)) if scale == "log" else value


def sample(measured: Measured, reader: Reader) -> Sample:
    """Read a measurement's items and check that they reproduce its value; without them, the value alone."""
    columns, missing = read_items(measured, reader)
    try:
        return sample_of(measured.metric, measured.value, columns, missing)
    except UNUSABLE:
        return sample_of(measured.metric, measured.value, None, DAMAGED)


def sample_of(metric: str, measured: float, columns: Columns | None, missing: str = "") -> Sample:
    """A value and its items where they reproduce it; `missing` says why there are none."""
    scale = scale_of(metric)
    value = to_scale(measured, scale)
    if columns is None:
        return Sample(value, scale, missing=missing)
    found = reading_of(metric, value, columns)
    if found is None:
        return Sample(value, scale, missing="items do not reproduce the value")
    _, unit, influence_N = found
    if _is_proportion(metric, columns) and unit == 1.0:
        scale = "proportion"
    return Sample(value, scale, columns["item"], unit * influence_N, place_N=places(columns["item"]))


def reading_of(metric: str, value: float, columns: Columns) -> tuple[Reading, float, Floats] | None:
    """The first reading of the items that reproduces `value`, its unit (1, or 100 of a percentage) and influence."""
    for reading in readings(metric, columns):
        found, influence_N = estimate(reading)
        for unit in (1.0, 100.0):
            if abs(unit * found - value) <= AGREEMENT * max(abs(value), 1e-3):
                return reading, unit, influence_N
    return None


def _of(metric: str, columns: Columns) -> Columns:
    """The items that a metric is over: those of `in_<metric>` where there is such a column, else all."""
    chosen = columns.get(f"in_{metric}")
    return columns if chosen is None else {name: column[chosen] for name, column in columns.items()}


def _is_proportion(metric: str, columns: Columns) -> bool:
    return "acc" in metric and "f1" not in metric and "correct" in columns


def read_items(measured: Measured, reader: Reader) -> tuple[Columns | None, str]:
    """A measurement's items, those that its metric is over; or why there are none."""
    if measured.items_path is None:
        return None, "no items stored"
    try:
        data = reader.read_bytes(measured.items_path)
        if measured.items_sha256 is not None and hashlib.sha256(data).hexdigest() != measured.items_sha256:
            return None, DAMAGED
        columns = _of(measured.metric, _columns(data))
    except FileNotFoundError:
        return None, "items file is gone"
    except UNUSABLE:
        return None, DAMAGED
    if "item" not in columns or len(columns["item"]) < 2:
        return None, "fewer than two items"
    if len(np.unique(columns["item"])) < len(columns["item"]):
        return None, "items are not distinct"
    return columns, ""


def _columns(data: bytes) -> Columns:
    """The columns of a Parquet file; items that are counted are named by their numbers."""
    import pyarrow.parquet
    from pyarrow import types

    table = pyarrow.parquet.ParquetFile(io.BytesIO(data)).read()
    columns = {name: table.column(name).to_numpy() for name in table.column_names}
    if "item" in columns:
        kind = table.schema.field("item").type
        if types.is_integer(kind):
            columns["item"] = np.array([str(number) for number in columns["item"].tolist()], dtype=object)
        elif not (types.is_string(kind) or types.is_large_string(kind)):
            raise ValueError(f"items are named by {kind}")
    return columns
