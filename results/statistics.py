"""Means, intervals and comparisons over training seeds and test items.

The seeds s = 1..S and the items i = 1..N are crossed: each trained model is scored on the same items. With t_s the
estimate of seed s and d_si the influence of item i on it (see `results.influence`),

    Var(mean_s t_s) ~ V_S + V_I - V_SI
    V_S  = var_s(t_s) / S
    V_I  = B(mean_s d_s)
    V_SI = sum_s B(d_s - mean_s d_s) / ((S - 1) S)

with B(d) = sum_i d_i^2 / (N (N - 1)) where items are independent, and its sum over blocks where they are windows of a
text (`results.blocks`). It is the moment estimator of the two-way random-effects layout (Cornfield & Tukey, Ann. Math.
Stat. 27, 1956; the same sum is the two-way clustered variance of Cameron, Gelbach & Miller, JBES 29, 2011, eq. 2.13),
never below V_S or V_I. How far the mean may be from the truth by it: `results.spread`. Nothing here is random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from results import mcnemar
from results.blocks import block_dof, block_length, block_variance
from results.influence import Floats
from results.items import Sample, from_scale
from results.spread import Spread

SIGNIFICANCE = 0.05
"""1 - confidence of the intervals, too."""


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
    spread: Spread | None = None
    """What it is uncertain by; None where there is no p-value, or no variance."""
    effect: float | None = None
    """Of one item: `Comparison.effect`."""


@dataclass(frozen=True)
class Stacked:
    """Influence over the items that samples have in common, each row centred."""

    influence_SN: Floats
    neighbours: bool
    """Whether the items are windows of a text, here in its order."""
    mean_S: Floats
    """What centring took away: 0 where all items are in common."""


NO_INTERVAL = Spread("no interval", known=False)


def summarise(samples: Sequence[Sample]) -> Summary:
    """Mean over seeds with a t interval; one seed of an accuracy gets Wilson's interval (JASA 22, 1927)."""
    assert samples, "nothing to summarise"
    scale, value = samples[0].scale, float(np.mean([s.value for s in samples]))
    stacked = stack(samples)
    spread = _spread(np.array([s.value for s in samples]), stacked)
    items = 0 if stacked is None else stacked.influence_SN.shape[1]
    note = next((s.missing for s in samples if s.missing), "")
    if not spread.known:
        return Summary(from_scale(value, scale), None, None, "no interval", len(samples), items, note)
    if scale == "proportion" and len(samples) == 1:
        low, high = wilson(value, items)
    else:
        half = spread.half_width(SIGNIFICANCE) if spread.variance > 0 else 0.0
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
    """The paired difference a - b over the seeds and items that both have; keys are seeds.

    One seed of an accuracy gets McNemar's exact test, and the wider of its interval and of the paired t interval.
    """
    seeds = sorted(set(a) & set(b))
    if not seeds:
        gap = float(np.mean([s.value for s in a.values()]) - np.mean([s.value for s in b.values()]))
        return Difference(gap, None, None, None, "no common seed")
    ours, theirs = [a[s] for s in seeds], [b[s] for s in seeds]
    pairs = stack([*ours, *theirs])
    gaps = None if pairs is None else _less(pairs, len(seeds))
    gap_S = np.array([x.value - y.value for x, y in zip(ours, theirs, strict=True)])
    gap, spread = float(gap_S.mean()), _spread(gap_S, gaps)
    if not spread.known:
        return Difference(gap, None, None, None, "no interval")
    exact = pairs is not None and len(seeds) == 1 and ours[0].scale == theirs[0].scale == "proportion"
    if spread.variance == 0 and not (exact and gap):
        # Identical on every item: no difference. Without items, equal seeds of a deterministic method prove nothing.
        p_value = 1.0 if gap == 0 else 0.0 if gaps is not None else None
        return Difference(gap, gap, gap, p_value, spread.basis)
    half = spread.half_width(SIGNIFICANCE) if spread.variance > 0 else 0.0
    low, high = gap - half, gap + half
    if pairs is not None and exact:
        level_S = pairs.mean_S + np.array([ours[0].value, theirs[0].value])
        first_N, second_N = pairs.influence_SN + level_S[:, None]
        counts = mcnemar.discordant(first_N, second_N)
        limits = mcnemar.limits(*counts, len(first_N), SIGNIFICANCE)
        low, high, p_value = min(low, limits[0]), max(high, limits[1]), mcnemar.p_value(*counts)
    else:
        p_value = spread.p_value(gap)
    effect = None if gaps is None else effect_size(gap, ours, theirs, gaps.influence_SN)
    return Difference(gap, low, high, p_value, spread.basis, spread if spread.variance > 0 else None, effect)


def _less(pairs: Stacked, num_seeds: int) -> Stacked:
    """The first rows less the others."""
    first_SN, second_SN = np.split(pairs.influence_SN, [num_seeds])
    return Stacked(first_SN - second_SN, pairs.neighbours, pairs.mean_S[:num_seeds] - pairs.mean_S[num_seeds:])


def effect_size(gap: float, ours: Sequence[Sample], theirs: Sequence[Sample], gaps_SN: Floats) -> float | None:
    """How large a difference is beside that of single items, seeds averaged; None where all items differ alike.

    Of accuracies Cohen's h = 2 asin sqrt(p_a) - 2 asin sqrt(p_b), else d_z = difference / standard deviation of the
    items' differences (Cohen, *Statistical Power Analysis*, 2nd ed. 1988, sections 6.2 and 2.2).
    """
    if ours[0].scale == theirs[0].scale == "proportion":
        a, b = (float(np.mean([sample.value for sample in each])) for each in (ours, theirs))
        return float(2 * np.arcsin(np.sqrt(a)) - 2 * np.arcsin(np.sqrt(b)))
    deviation = float(gaps_SN.mean(axis=0).std(ddof=1))
    return gap / deviation if deviation > 0 else None


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (Scand. J. Stat. 6, 1979): max over j <= i of min(1, (m - j + 1) p_(j))."""
    adjusted, running = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        running = max(running, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = running
    return adjusted


def wilson(proportion: float, n: int) -> tuple[float, float]:
    """Wilson's score interval of a proportion over `n` items."""
    from scipy.special import ndtri

    z = float(ndtri(1 - SIGNIFICANCE / 2))
    centre = (proportion + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * sqrt(proportion * (1 - proportion) / n + z**2 / (4 * n**2))
    return centre - half, centre + half


def stack(samples: Sequence[Sample]) -> Stacked | None:
    """None without items that all samples have."""
    first = samples[0]
    if first.items is None or any(s.items is None or s.influence_N is None for s in samples):
        return None
    rows, place_N = [s.influence_N for s in samples if s.influence_N is not None], first.place_N
    if not all(np.array_equal(first.items, s.items) for s in samples if s.items is not None):
        common = first.items
        for s in samples[1:]:
            assert s.items is not None
            common = np.intersect1d(common, s.items)
        rows = [_pick(s, common, s.influence_N) for s in samples]
        place_N = None if first.place_N is None else _pick(first, common, first.place_N)
    stacked_SN: Floats = np.stack(rows)
    if stacked_SN.shape[1] < 2:
        return None
    if place_N is not None:
        stacked_SN = stacked_SN[:, np.argsort(place_N, kind="stable")]
    mean_S: Floats = stacked_SN.mean(axis=1)
    return Stacked(stacked_SN - mean_S[:, None], place_N is not None, mean_S)


def _pick(sample: Sample, common: NDArray[Any], values_N: Any) -> Any:
    """The values of the common items, in their order."""
    assert sample.items is not None
    order = np.argsort(sample.items)
    return values_N[order[np.searchsorted(sample.items, common, sorter=order)]]


def _spread(value_S: Floats, stacked: Stacked | None) -> Spread:
    """The two-way variance above, or the part of it that the data allow."""
    num_seeds = len(value_S)
    if not np.isfinite(value_S).all():
        return NO_INTERVAL
    from_seeds = float(value_S.var(ddof=1) / num_seeds) if num_seeds > 1 else 0.0
    if stacked is None:
        return Spread("seeds only", seeds=from_seeds, seeds_dof=num_seeds - 1) if num_seeds > 1 else NO_INTERVAL
    influence_SN = stacked.influence_SN
    mean_N = influence_SN.mean(axis=0)
    length = block_length(mean_N) if stacked.neighbours else 1
    items_dof = block_dof(len(mean_N), length)
    from_items = block_variance(mean_N, 1)
    if length > 1:
        # Neighbours never speak for less noise than independent items would.
        from_items = max(from_items, block_variance(mean_N, length))
    if num_seeds == 1:
        return Spread("items only", items=from_items, items_dof=items_dof)
    from_both = block_variance(influence_SN - mean_N, length) / ((num_seeds - 1) * num_seeds)
    beyond = max(0.0, from_items - min(from_seeds, from_both))
    return Spread("seeds and items", from_seeds, beyond, num_seeds - 1, items_dof)
