"""The paired bootstrap: means of many rows over the same resamples of their items.

A resample draws N of the N items with replacement (Efron, Ann. Stat. 7, 1979); how often it has each item is a vector
of multinomial counts w, and the resampled means of K rows are w X / N with X (items x rows). All rows share a resample,
so that what they have in common falls out of every difference. Counts are made exactly, from drawn items, a bounded
number of resamples at a time, and one matrix product serves all rows. Where the items are windows of a text, blocks of
l neighbours are drawn instead (Politis & Romano, 1992; `results.blocks`). Draws are seeded: the same data, the same
numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from results.influence import Floats

RESAMPLES = 2000
SEED = 0
CHUNK = 2**21
"""Numbers of one chunk's counts or means: 16 MB."""
EQUAL = 1e-9
"""Resampled means that differ by less, relative to the largest deviation of an item, are the same."""


def item_counts(
    rng: np.random.Generator, num_items: int, resamples: int, *, length: int = 1, width: int = 1
) -> Iterator[Floats]:
    """Chunks (resample x item) of how often each item is drawn; `width` is how many means a resample will have."""
    size = max(1, CHUNK // max(num_items, width))
    for first in range(0, resamples, size):
        counts_RN = np.empty((min(size, resamples - first), num_items))
        for count_N in counts_RN:
            count_N[:] = np.bincount(_drawn(rng, num_items, length), minlength=num_items)
        yield counts_RN


def _drawn(rng: np.random.Generator, num_items: int, length: int) -> np.ndarray:
    if length == 1:
        return rng.integers(0, num_items, num_items)
    start_B = rng.integers(0, num_items, -(-num_items // length))
    drawn_N: np.ndarray = (start_B[:, None] + np.arange(length)).ravel()[:num_items] % num_items
    return drawn_N


def resampled_means(
    values_NK: Floats, *, resamples: int = RESAMPLES, seed: int = SEED, length: int = 1
) -> Iterator[Floats]:
    """Chunks (resample x column) of the columns' means over resampled items."""
    num_items, width = values_NK.shape
    rng = np.random.Generator(np.random.SFC64(seed))
    for counts_RN in item_counts(rng, num_items, resamples, length=length, width=width):
        yield counts_RN @ values_NK / num_items


def percentile_limits(
    values_NK: Floats,
    *,
    of_means: Callable[[Floats], Floats] = lambda mean_RK: mean_RK,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    alpha: float = 0.05,
    length: int = 1,
) -> tuple[Floats, Floats]:
    """Percentile limits of K means, or of what `of_means` makes of them: column by column, resamples first.

    Efron & Tibshirani, *An Introduction to the Bootstrap*, 1993, section 13.3.
    """
    chunks = resampled_means(values_NK, resamples=resamples, seed=seed, length=length)
    low_K, high_K = np.quantile(
        np.concatenate([of_means(mean_RK) for mean_RK in chunks]), (alpha / 2, 1 - alpha / 2), axis=0
    )
    return low_K, high_K


def share_best(
    value_KS: Floats, influence_KSN: Floats, *, resamples: int = RESAMPLES, seed: int = SEED, length: int = 1
) -> Floats:
    """Of each row the share of resamples in which its mean over seeds is the largest; rows that tie share one.

    Items are drawn and, apart from them, seeds, both for all rows alike (the pigeonhole bootstrap, Owen, Ann. Appl.
    Stat. 1, 2007). A resampled estimate of a seed is t_s + sum_i w_i d_si / N, which is exact for a mean and to first
    order for the rest.
    """
    num_rows, num_seeds, num_items = influence_KSN.shape
    flat_NM = influence_KSN.reshape(num_rows * num_seeds, num_items).T / num_items
    of_items, of_seeds = (np.random.Generator(np.random.SFC64(each)) for each in np.random.SeedSequence(seed).spawn(2))
    slack = EQUAL * max(float(np.abs(influence_KSN).max(initial=0.0)), float(np.abs(value_KS).max()))
    won_K = np.zeros(num_rows)
    for counts_RN in item_counts(of_items, num_items, resamples, length=length, width=flat_NM.shape[1]):
        estimate_RKS = value_KS + (counts_RN @ flat_NM).reshape(-1, num_rows, num_seeds)
        seed_RS = of_seeds.integers(0, num_seeds, (len(counts_RN), num_seeds))
        share_RS = (seed_RS[:, :, None] == np.arange(num_seeds)).mean(axis=1)
        mean_RK = np.einsum("rks,rs->rk", estimate_RKS, share_RS)
        first_RK = mean_RK >= mean_RK.max(axis=1, keepdims=True) - slack
        won_K += (first_RK / first_RK.sum(axis=1, keepdims=True)).sum(axis=0)
    return won_K / resamples
