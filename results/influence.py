"""How much each item moves a metric.

For an estimate t over n items, the influence values d_1..d_n sum to zero and give the variance

    Var(t) ~ sum_i d_i^2 / (n (n - 1)).

For a mean, d_i = x_i - mean. For a ratio R = sum nll / sum w it is the delta method, d_i = (nll_i - R w_i) / mean(w)
(Cochran, Sampling Techniques, 3rd ed. 1977, eq. 6.13). For the rest it is the jackknife,
d_i = (n - 1) (t - t_without_i), centred (Efron & Stein, Ann. Stat. 9, 1981), with t_without_i in closed form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Columns = Mapping[str, NDArray[Any]]
Estimate = tuple[float, Floats]
"""The estimate and its influence values, one per item."""
Part = tuple[Any, *tuple[NDArray[Any], ...]]
"""One of the rules below and the arrays that it takes, item by item."""
Reading = tuple[Part, ...]
"""A metric as the mean of its parts."""

NORMALISERS = ("words", "tokens", "bytes")


def mean(values_N: Floats) -> Estimate:
    """The plain mean."""
    value = float(values_N.mean())
    return value, values_N - value


def ratio(total_N: Floats, weight_N: Floats) -> Estimate:
    """sum(total) / sum(weight), by the delta method."""
    value = float(total_N.sum() / weight_N.sum())
    return value, (total_N - value * weight_N) / weight_N.mean()


def matthews(prediction_N: NDArray[Any], label_N: NDArray[Any]) -> Estimate:
    """Matthews correlation over K classes: (c s - p.t) / sqrt((s^2 - p.p) (s^2 - t.t)).

    s items, c of them right, p_k predicted as and t_k labelled as class k (Gorodkin, 2004); 0 where undefined.
    """
    classes, codes = np.unique(np.concatenate([prediction_N, label_N]), return_inverse=True)
    guess_N, truth_N = np.split(codes, 2)
    p_K = np.bincount(guess_N, minlength=len(classes)).astype(np.float64)
    t_K = np.bincount(truth_N, minlength=len(classes)).astype(np.float64)
    right_N = (guess_N == truth_N).astype(np.float64)
    size, right = float(len(right_N)), float(right_N.sum())
    value = matthews_of(size, right, float(p_K @ t_K), float(p_K @ p_K), float(t_K @ t_K))
    without_N = matthews_of(
        size - 1,
        right - right_N,
        p_K @ t_K - t_K[guess_N] - p_K[truth_N] + right_N,
        p_K @ p_K - 2 * p_K[guess_N] + 1,
        t_K @ t_K - 2 * t_K[truth_N] + 1,
    )
    return float(value), _jackknife(float(value), without_N)


def matthews_of(size: float, right: Any, cross: Any, predicted: Any, labelled: Any) -> Any:
    """Matthews correlation from the sums above; 0 where undefined."""
    squared = (size**2 - predicted) * (size**2 - labelled)
    return np.where(squared > 0, (right * size - cross) / np.sqrt(np.where(squared > 0, squared, 1.0)), 0.0)


def f1(prediction_N: NDArray[Any], label_N: NDArray[Any]) -> Estimate:
    """F1 of class 1: 2 TP / (2 TP + FP + FN), that is 2 TP / (predicted + labelled); 0 where undefined."""
    guess_N, truth_N = (prediction_N == 1).astype(np.float64), (label_N == 1).astype(np.float64)
    hit_N, mass_N = 2 * guess_N * truth_N, guess_N + truth_N
    hits, mass = hit_N.sum(), mass_N.sum()
    value = float(hits / mass) if mass else 0.0
    left_N = mass - mass_N
    without_N = np.where(left_N > 0, (hits - hit_N) / np.where(left_N > 0, left_N, 1.0), 0.0)
    return value, _jackknife(value, without_N)


def pearson(x_N: Floats, y_N: Floats) -> Estimate:
    """Pearson's r; each item is taken out of the five running sums. 0 where undefined."""
    x_N, y_N = x_N - x_N.mean(), y_N - y_N.mean()
    n = float(len(x_N))
    xx, yy, xy = x_N @ x_N, y_N @ y_N, x_N @ y_N
    value = float(xy / np.sqrt(xx * yy)) if xx * yy > 0 else 0.0
    # With centred data the other sums are zero, so taking item i out leaves sums -x_i and -y_i over n - 1 items.
    xx_N, yy_N, xy_N = (total - n / (n - 1) * part for total, part in ((xx, x_N**2), (yy, y_N**2), (xy, x_N * y_N)))
    square_N = xx_N * yy_N
    without_N = np.where(square_N > 0, xy_N / np.sqrt(np.where(square_N > 0, square_N, 1.0)), 0.0)
    return value, _jackknife(value, without_N)


def spearman(x_N: Floats, y_N: Floats) -> Estimate:
    """Pearson's r of the ranks; ranks are not recomputed when an item is left out (an O(1/n) approximation)."""
    return pearson(ranks_of(x_N), ranks_of(y_N))


def ranks_of(values_N: Floats) -> Floats:
    """Ranks from 1; equal values share their mean rank."""
    _, place_N, count_U = np.unique(values_N, return_inverse=True, return_counts=True)
    last_U = np.cumsum(count_U).astype(np.float64)
    ranks: Floats = (last_U - (count_U - 1) / 2)[place_N]
    return ranks


def _jackknife(value: float, without_N: Any) -> Floats:
    influence_N: Floats = (len(without_N) - 1) * (value - without_N)
    centred_N: Floats = influence_N - influence_N.mean()
    return centred_N


def candidates(metric: str, columns: Columns) -> Iterator[Estimate]:
    """Every estimate that the items of `metric` allow, likeliest first; perplexities are given as their logarithm."""
    return map(estimate, readings(metric, columns))


def estimate(reading: Reading) -> Estimate:
    """The mean of a reading's parts."""
    parts: list[Estimate] = [rule(*arrays) for rule, *arrays in reading]
    if len(parts) == 1:
        return parts[0]
    return float(np.mean([value for value, _ in parts])), np.mean([influence for _, influence in parts], axis=0)


def readings(metric: str, columns: Columns) -> Iterator[Reading]:
    """Every reading of `metric` that its items allow, likeliest first."""
    if metric in columns:
        yield ((mean, columns[metric].astype(np.float64)),)
    if "nll" in columns:
        yield from (((rule, *arrays),) for rule, *arrays in _likelihood(metric, columns))
    if "nll" not in columns or "correct" in columns:
        parts = tuple(_classification(metric, columns))
        if parts:
            yield parts


def _likelihood(metric: str, columns: Columns) -> Iterator[Part]:
    nll_N = columns["nll"].astype(np.float64)
    unit = 1 / np.log(2) if "bit" in metric or "bpb" in metric else 1.0
    for name in NORMALISERS:
        weight_N = columns[name].astype(np.float64) if name in columns else np.zeros(1)
        if weight_N.sum() > 0:
            yield ratio, unit * nll_N, weight_N
        if (weight_N > 0).all():
            yield mean, unit * nll_N / weight_N
    yield mean, unit * nll_N


def _classification(metric: str, columns: Columns) -> Iterator[Part]:
    if "acc" in metric and "correct" in columns:
        yield mean, columns["correct"].astype(np.float64)
    if {"prediction", "label"} <= set(columns):
        guess_N, truth_N = columns["prediction"], columns["label"]
        if "f1" in metric:
            yield f1, guess_N, truth_N
        if "matthews" in metric or "mcc" in metric:
            yield matthews, guess_N, truth_N
        if guess_N.dtype.kind in "biuf" and truth_N.dtype.kind in "biuf":
            x_N, y_N = guess_N.astype(np.float64), truth_N.astype(np.float64)
            yield from ((r, x_N, y_N) for word, r in (("pearson", pearson), ("spearman", spearman)) if word in metric)
