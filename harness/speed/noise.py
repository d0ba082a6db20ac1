"""How far two measurements of one model lie apart: a smaller difference between two models is none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NORMAL_SD = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation (Hampel, JASA 69, 1974)."""
BETWEEN_TWO = 1.96 * 2**0.5
"""95 % of differences between two normal values are within so many of their standard deviations."""
FEWEST_FOR_P99 = 100
"""With fewer values the 99th percentile is about the largest of them."""


def difference(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> float:
    """|median(first) - median(second)| over the mean of the two: 0.03 is 3 %."""
    one, other = float(np.median(first)), float(np.median(second))
    return abs(one - other) / ((one + other) / 2)


def noise(rounds: Sequence[float]) -> float:
    """The noise of one model's speed, from a value per round; the model is measured twice, in alternate rounds.

    The largest of three relative differences:

    - between the medians of the even and of the odd rounds (A/A);
    - between the medians of the earlier and of the later half, which shows drift;
    - between two rounds, in 95 % of pairs: 1.96 sqrt(2) 1.4826 MAD / median, MAD the median absolute deviation from
      the median. It does not shrink with the number of rounds, since a machine that is slower for minutes slows all
      rounds of a measurement.
    """
    values = np.asarray(rounds, dtype=float)
    assert len(values) >= 4, "two rounds of either measurement"
    half, median = len(values) // 2, float(np.median(values))
    spread = BETWEEN_TWO * NORMAL_SD * float(np.median(np.abs(values - median))) / median
    return max(difference(values[::2], values[1::2]), difference(values[:half], values[-half:]), spread)


def p99(values: Sequence[float]) -> float | None:
    """The 99th percentile, interpolated; None of fewer than `FEWEST_FOR_P99` values."""
    return float(np.quantile(values, 0.99)) if len(values) >= FEWEST_FOR_P99 else None
