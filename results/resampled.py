"""What resampled items make of a metric: a check of its interval, which takes every metric for a mean of influences.

Each metric here is a function of sums over items: a ratio of two, Matthews correlation of the table of classes, F1 of
hits and predictions, Pearson's r of five. So its value in a resample is that function of resampled means
(`results.bootstrap`), and nothing is linearised. Spearman's ranks are those of all items.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from results import influence
from results.blocks import block_length
from results.bootstrap import percentile_limits
from results.influence import Floats, Reading
from results.items import Sample, from_scale, read_items, reading_of, to_scale
from results.reader import Reader
from results.record import Measured

Sums = tuple[Floats, Callable[[Floats], Floats]]
"""Columns (item x column), and the metric in each resample from their means (resample x column)."""


def item_limits(measured: Sequence[Measured], samples: Sequence[Sample], reader: Reader) -> tuple[float, float] | None:
    """95 % percentile limits of a metric's mean over seeds, in its own unit, when its items alone are drawn again.

    One measurement per seed, and its sample. None where a seed has no items, or others than the first.
    """
    first, parts = samples[0], []
    for each, sample in zip(measured, samples, strict=True):
        columns = None if sample.items is None else read_items(each, reader)[0]
        found = None if columns is None else reading_of(each.metric, to_scale(each.value, first.scale), columns)
        if found is None or sample.items is None or first.items is None:
            return None
        if not np.array_equal(sample.items, first.items):
            return None
        parts.append((*sums_of(found[0]), found[1]))
    values_NM, length = np.concatenate([values_NM for values_NM, _, _ in parts], axis=1), 1
    if first.place_N is not None:
        order_N = np.argsort(first.place_N, kind="stable")
        influence_SN = [sample.influence_N for sample in samples if sample.influence_N is not None]
        values_NM, length = values_NM[order_N], block_length(np.mean(influence_SN, axis=0)[order_N])
    ends = np.cumsum([own_NM.shape[1] for own_NM, _, _ in parts])[:-1]

    def over_seeds(mean_RM: Floats) -> Floats:
        pieces = np.split(mean_RM, ends, axis=1)
        mean_R: Floats = np.mean([u * of(own) for (_, of, u), own in zip(parts, pieces, strict=True)], axis=0)
        return mean_R

    low, high = percentile_limits(values_NM, of_means=over_seeds, length=length)
    return from_scale(float(low), first.scale), from_scale(float(high), first.scale)


def sums_of(reading: Reading) -> Sums:
    """The sums of a reading's parts, and the mean of the parts from them."""
    parts = [SUMS[rule](*arrays) for rule, *arrays in reading]
    ends = np.cumsum([values_NM.shape[1] for values_NM, _ in parts])[:-1]

    def mean_of_parts(mean_RM: Floats) -> Floats:
        pieces = np.split(mean_RM, ends, axis=1)
        mean_R: Floats = np.mean([of(own) for (_, of), own in zip(parts, pieces, strict=True)], axis=0)
        return mean_R

    return np.concatenate([values_NM for values_NM, _ in parts], axis=1), mean_of_parts


def _mean(values_N: Floats) -> Sums:
    return values_N[:, None], lambda mean_RM: mean_RM[:, 0]


def _ratio(total_N: Floats, weight_N: Floats) -> Sums:
    return np.stack([total_N, weight_N], axis=1), lambda mean_RM: mean_RM[:, 0] / mean_RM[:, 1]


def _matthews(guess_N: NDArray[Any], truth_N: NDArray[Any]) -> Sums:
    classes = np.unique(np.concatenate([guess_N, truth_N]))
    num = len(classes)

    def of_means(mean_RM: Floats) -> Floats:
        right_R, p_RK, t_RK = mean_RM[:, 0], mean_RM[:, 1 : 1 + num], mean_RM[:, 1 + num :]
        value_R: Floats = influence.matthews_of(1.0, right_R, (p_RK * t_RK).sum(1), (p_RK**2).sum(1), (t_RK**2).sum(1))
        return value_R

    hits_N1 = (guess_N == truth_N)[:, None]
    return np.hstack([hits_N1, guess_N[:, None] == classes, truth_N[:, None] == classes]).astype(np.float64), of_means


def _f1(guess_N: NDArray[Any], truth_N: NDArray[Any]) -> Sums:
    positive_N, true_N = (guess_N == 1).astype(np.float64), (truth_N == 1).astype(np.float64)

    def of_means(mean_RM: Floats) -> Floats:
        return np.divide(mean_RM[:, 0], mean_RM[:, 1], out=np.zeros(len(mean_RM)), where=mean_RM[:, 1] > 0)

    return np.stack([2 * positive_N * true_N, positive_N + true_N], axis=1), of_means


def _pearson(x_N: Floats, y_N: Floats) -> Sums:
    x_N, y_N = x_N - x_N.mean(), y_N - y_N.mean()

    def of_means(mean_RM: Floats) -> Floats:
        x_R, y_R, xx_R, yy_R, xy_R = mean_RM.T
        square_R = (xx_R - x_R**2) * (yy_R - y_R**2)
        value_R: Floats = np.divide(xy_R - x_R * y_R, np.sqrt(square_R), out=np.zeros(len(x_R)), where=square_R > 0)
        return value_R

    return np.stack([x_N, y_N, x_N**2, y_N**2, x_N * y_N], axis=1), of_means


def _spearman(x_N: Floats, y_N: Floats) -> Sums:
    return _pearson(influence.ranks_of(x_N), influence.ranks_of(y_N))


SUMS: Mapping[Callable[..., Any], Callable[..., Sums]] = {
    influence.mean: _mean,
    influence.ratio: _ratio,
    influence.matthews: _matthews,
    influence.f1: _f1,
    influence.pearson: _pearson,
    influence.spearman: _spearman,
}
"""The rules of `results.influence`, each with its sums."""
