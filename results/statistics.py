"""Means, intervals and comparisons over training seeds and test items.

The seeds s = 1..S and the items i = 1..N are crossed: each trained model is scored on the same items. With t_s the
estimate of seed s and d_si the influence of item i on it (see `results.influence`),

    Var(mean_s t_s) ~ V_S + V_I - V_SI
    V_S  = var_s(t_s) / S
    V_I  = sum_i (mean_s d_si)^2 / (N (N - 1))
    V_SI = sum_si (d_si - mean_s d_si)^2 / ((S - 1) (N - 1) S N)

the moment estimator of the two-way random-effects layout (Cornfield & Tukey, Ann. Math. Stat. 27, 1956; the same sum
is the two-way clustered variance of Cameron, Gelbach & Miller, JBES 29, 2011, eq. 2.13), never below V_S or V_I. The
degrees of freedom are Satterthwaite's (Biometrics Bulletin 2, 1946):
Var^2 / (V_S^2 / (S - 1) + V_I^2 / (N - 1)). Items are taken as independent; nothing here is random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt

import numpy as np

from results.influence import Floats
from results.items import Sample, from_scale

CONFIDENCE = 0.95
SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Summary:
    """A mean over seeds and its 95 % interval, in the metric's own unit.

    A perplexity's mean is geometric. `basis` says what the interval covers: `seeds and items`, `items only`,
    `seeds only`, or `no interval`.
    """

    value: float
    low: float | None
    high: float | None
    basis: str
    seeds: int
    items: int
    note: str = ""


@dataclass(frozen=True)
class Difference:
    """a - b on the comparison scale (for a perplexity: the logarithm of the ratio a / b).

    `p_value` is two-sided, None when nothing common allows a test; `basis` is as in `Summary`.
    """

    difference: float
    low: float | None
    high: float | None
    p_value: float | None
    basis: str


@dataclass(frozen=True)
class _Spread:
    """Variance of a mean over seeds, its degrees of freedom, and what it covers."""

    variance: float | None
    dof: float
    basis: str


def summarise(samples: Sequence[Sample]) -> Summary:
    """Mean over seeds with a t interval; one seed of an accuracy gets Wilson's interval (JASA 22, 1927)."""
    assert samples, "nothing to summarise"
    scale, value = samples[0].scale, float(np.mean([s.value for s in samples]))
    influence_SN = _stack(samples)
    spread = _spread(np.array([s.value for s in samples]), influence_SN)
    items = 0 if influence_SN is None else influence_SN.shape[1]
    note = next((s.missing for s in samples if s.missing), "")
    if not isfinite(value) or spread.variance is None:
        return Summary(from_scale(value, scale), None, None, "no interval", len(samples), items, note)
    if scale == "proportion" and len(samples) == 1:
        low, high = wilson(value, items)
    else:
        half = _quantile(spread.dof) * sqrt(spread.variance)
        low, high = value - half, value + half
    if scale == "proportion":
        low, high = max(low, 0.0), min(high, 1.0)
    return Summary(
        from_scale(value, scale),
        from_scale(low, scale),
        from_scale(high, scale),
        spread.basis,
        len(samples),
        items,
        note,
    )


def compare(a: Mapping[int, Sample], b: Mapping[int, Sample]) -> Difference:
    """The paired difference a - b over the seeds and items that both have; keys are seeds."""
    seeds = sorted(set(a) & set(b))
    if not seeds:
        gap = float(np.mean([s.value for s in a.values()]) - np.mean([s.value for s in b.values()]))
        return Difference(gap, None, None, None, "no common seed")
    pairs = _stack([a[s] for s in seeds] + [b[s] for s in seeds])
    influence_SN = None if pairs is None else pairs[: len(seeds)] - pairs[len(seeds) :]
    gap_S = np.array([a[s].value - b[s].value for s in seeds])
    gap, spread = float(gap_S.mean()), _spread(gap_S, influence_SN)
    if not isfinite(gap) or spread.variance is None:
        return Difference(gap, None, None, None, "no interval")
    if spread.variance == 0:
        # Identical on every item: no difference. Without items, equal seeds of a deterministic method prove nothing.
        p_value = 1.0 if gap == 0 else 0.0 if influence_SN is not None else None
        return Difference(gap, gap, gap, p_value, spread.basis)
    error = sqrt(spread.variance)
    half = _quantile(spread.dof) * error
    return Difference(gap, gap - half, gap + half, _p_value(gap / error, spread.dof), spread.basis)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (Scand. J. Stat. 6, 1979): max over j <= i of min(1, (m - j + 1) p_(j))."""
    adjusted, running = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        running = max(running, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = running
    return adjusted


def wilson(proportion: float, n: int) -> tuple[float, float]:
    """Wilson's score interval of a proportion over `n` items."""
    z = _quantile(float("inf"))
    centre = (proportion + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * sqrt(proportion * (1 - proportion) / n + z**2 / (4 * n**2))
    return centre - half, centre + half


def _stack(samples: Sequence[Sample]) -> Floats | None:
    """Influence over the items common to all samples, (sample x item), each row centred; None without such items."""
    first = samples[0].items
    if first is None or any(s.items is None or s.influence_N is None for s in samples):
        return None
    rows = [s.influence_N for s in samples if s.influence_N is not None]
    if not all(np.array_equal(first, s.items) for s in samples if s.items is not None):
        common = first
        for s in samples[1:]:
            assert s.items is not None
            common = np.intersect1d(common, s.items)
        rows = [_pick(s, common) for s in samples]
    stacked_SN: Floats = np.stack(rows)
    return stacked_SN - stacked_SN.mean(axis=1, keepdims=True) if stacked_SN.shape[1] >= 2 else None


def _pick(sample: Sample, common: Floats) -> Floats:
    assert sample.items is not None
    assert sample.influence_N is not None
    order = np.argsort(sample.items)
    picked: Floats = sample.influence_N[order[np.searchsorted(sample.items, common, sorter=order)]]
    return picked


def _spread(value_S: Floats, influence_SN: Floats | None) -> _Spread:
    """The two-way variance above, or the part of it that the data allow."""
    num_seeds = len(value_S)
    from_seeds = float(value_S.var(ddof=1) / num_seeds) if num_seeds > 1 else 0.0
    if influence_SN is None:
        return _Spread(from_seeds, num_seeds - 1, "seeds only") if num_seeds > 1 else _Spread(None, 0, "no interval")
    num_items = influence_SN.shape[1]
    mean_N = influence_SN.mean(axis=0)
    from_items = float(mean_N @ mean_N / (num_items * (num_items - 1)))
    if num_seeds == 1:
        return _Spread(from_items, num_items - 1, "items only")
    residual = float(((influence_SN - mean_N) ** 2).sum())
    from_both = residual / ((num_seeds - 1) * (num_items - 1) * num_seeds * num_items)
    variance = max(from_seeds + from_items - from_both, from_seeds, from_items)
    parts = from_seeds**2 / (num_seeds - 1) + from_items**2 / (num_items - 1)
    dof = variance**2 / parts if parts > 0 else num_seeds - 1
    return _Spread(variance, dof, "seeds and items")


def _quantile(dof: float) -> float:
    """Two-sided 95 % quantile of Student's t."""
    from scipy.special import ndtri, stdtrit

    return float(ndtri(0.5 + CONFIDENCE / 2) if dof == float("inf") else stdtrit(dof, 0.5 + CONFIDENCE / 2))


def _p_value(t: float, dof: float) -> float:
    from scipy.special import stdtr

    return float(2 * stdtr(dof, -abs(t)))
