"""All pairs of rows at once: the numbers of `results.statistics.compare`, without its loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from math import isnan

import numpy as np

from results.influence import Floats
from results.items import Sample
from results.spread import Spread, p_values, quantiles
from results.statistics import SIGNIFICANCE, Difference, compare, stack

CHUNK = 2**20
"""Numbers of one chunk's differences: 8 MB."""


def compare_all(rows: Sequence[Mapping[int, Sample]]) -> list[Difference]:
    """`compare` of every pair, in the order of `itertools.combinations`.

    At once where all rows have the same seeds and, all or none, the same independent items; else pair by pair: windows
    have blocks, and right answers of one seed a test, of the pair's own.
    """
    if len(rows) < 3 or not _alike(rows):
        return [compare(a, b) for a, b in combinations(rows, 2)]
    seeds = sorted(rows[0])
    value_KS = np.array([[samples[seed].value for seed in seeds] for samples in rows])
    a_P, b_P = np.triu_indices(len(rows), 1)
    gap_PS = value_KS[a_P] - value_KS[b_P]
    gap_P, from_seeds_P = gap_PS.mean(axis=1), np.zeros(len(a_P))
    if len(seeds) > 1:
        from_seeds_P = gap_PS.var(axis=1, ddof=1) / len(seeds)
    stacked = stack([samples[seed] for samples in rows for seed in seeds])
    if stacked is None:
        parts = (from_seeds_P, np.zeros(len(a_P)), len(seeds) - 1, 0)
        return _differences("seeds only", gap_P, parts, np.full(len(a_P), np.nan))
    influence_KSN = stacked.influence_SN.reshape(len(rows), len(seeds), -1)
    from_items_P, beyond_P = _of_items(influence_KSN, from_seeds_P)
    num_items = influence_KSN.shape[2]
    if rows[0][seeds[0]].scale == "proportion":
        turned_K = 2 * np.arcsin(np.sqrt(value_KS.mean(axis=1)))
        effect_P = turned_K[a_P] - turned_K[b_P]
    else:
        deviation_P = np.sqrt(from_items_P * num_items)
        effect_P = np.divide(gap_P, deviation_P, out=np.full(len(a_P), np.nan), where=deviation_P > 0)
    basis = "items only" if len(seeds) == 1 else "seeds and items"
    return _differences(basis, gap_P, (from_seeds_P, beyond_P, len(seeds) - 1, num_items - 1), effect_P)


def _alike(rows: Sequence[Mapping[int, Sample]]) -> bool:
    samples = [sample for row in rows for sample in row.values()]
    first = samples[0]
    if any(row.keys() != rows[0].keys() for row in rows) or first.place_N is not None:
        return False
    if len(rows[0]) == 1 and (first.items is None or any(sample.scale == "proportion" for sample in samples)):
        return False
    if any(not np.isfinite(sample.value) or sample.scale != first.scale for sample in samples):
        return False
    if first.items is None:
        return all(sample.items is None for sample in samples)
    return len(first.items) > 1 and all(
        sample.items is not None and np.array_equal(first.items, sample.items) for sample in samples
    )


def _of_items(influence_KSN: Floats, from_seeds_P: Floats) -> tuple[Floats, Floats]:
    """V_I and U of every pair (`results.statistics`, `results.spread`)."""
    _, num_seeds, num_items = influence_KSN.shape
    pairs = num_items * (num_items - 1)
    from_items, from_both = [], []
    for difference_PSN in _chunks(influence_KSN):
        mean_PN = difference_PSN.mean(axis=1)
        from_items.append((mean_PN**2).sum(axis=1) / pairs)
        residual_P = ((difference_PSN - mean_PN[:, None]) ** 2).sum(axis=(1, 2))
        from_both.append(residual_P / (pairs * max(1, num_seeds - 1) * num_seeds))
    from_items_P, from_both_P = np.concatenate(from_items), np.concatenate(from_both)
    return from_items_P, np.maximum(0.0, from_items_P - np.minimum(from_seeds_P, from_both_P))


def _chunks(influence_KSN: Floats) -> Iterator[Floats]:
    """The differences of a row from those after it, a bounded number at a time."""
    size = max(1, CHUNK // influence_KSN[0].size)
    for row, first_SN in enumerate(influence_KSN):
        for start in range(row + 1, len(influence_KSN), size):
            yield first_SN - influence_KSN[start : start + size]


def _differences(
    basis: str, gap_P: Floats, parts: tuple[Floats, Floats, int, int], effect_P: Floats
) -> list[Difference]:
    seeds_P, beyond_P, seeds_dof, items_dof = parts
    varies_P = seeds_P + beyond_P > 0
    own_seeds_P, own_beyond_P = seeds_P[varies_P], beyond_P[varies_P]
    quantile_P = quantiles(SIGNIFICANCE, own_seeds_P, own_beyond_P, seeds_dof, items_dof)
    half_P, p_P = np.zeros(len(gap_P)), np.where(gap_P == 0, 1.0, 0.0 if basis != "seeds only" else np.nan)
    half_P[varies_P] = quantile_P * np.sqrt(own_seeds_P + own_beyond_P)
    p_P[varies_P] = p_values(gap_P[varies_P], own_seeds_P, own_beyond_P, seeds_dof, items_dof)
    columns = (gap_P, gap_P - half_P, gap_P + half_P, p_P, np.where(varies_P, effect_P, np.nan), seeds_P, beyond_P)
    return [
        Difference(
            gap,
            low,
            high,
            None if isnan(p) else p,
            basis,
            Spread(basis, of_seeds, beyond, seeds_dof, items_dof) if of_seeds + beyond > 0 else None,
            None if isnan(effect) else effect,
        )
        for gap, low, high, p, effect, of_seeds, beyond in zip(*(each.tolist() for each in columns), strict=True)
    ]
