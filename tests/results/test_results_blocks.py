"""Windows of a text: the closed form against all blocks drawn, the length against theory, and what it mends."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.signal import lfilter

from results.blocks import block_dof, block_length, block_variance, places
from results.items import Sample, sample_of
from results.statistics import compare, summarise


def autoregressive(rng: np.random.Generator, memory: float, *shape: int) -> np.ndarray:
    drawn = rng.standard_normal((*shape[:-1], shape[-1] + 100))
    return np.asarray(lfilter([1.0], [1.0, -memory], drawn, axis=-1))[..., 100:]


def windows(x: np.ndarray) -> Sample:
    items = np.array([f"{1024 * i}:{1024 * i + 1024}" for i in range(len(x))], dtype=object)
    return sample_of("nll", float(x.mean()), {"item": items, "nll": x})


def test_variance_is_that_of_all_block_resamples() -> None:
    d = np.random.default_rng(0).standard_normal(6)
    d -= d.mean()
    blocks = [np.take(d, [start, start + 1], mode="wrap") for start in range(6)]
    means = [np.concatenate(drawn).mean() for drawn in product(blocks, repeat=3)]
    assert block_variance(d, 2) == pytest.approx(np.var(means) * 6 / (6 - 2))


def test_blocks_of_one_are_independent_items_and_longer_ones_are_unbiased_for_them() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((4000, 20))
    d = x - x.mean(axis=1, keepdims=True)
    assert block_variance(d[0], 1) == pytest.approx(x[0].var(ddof=1) / 20)
    assert block_dof(20, 1) == 19
    found = [block_variance(row, 4) for row in d]
    assert np.mean(found) == pytest.approx(1 / 20, rel=0.03)
    # A variable of f degrees of freedom has the relative variance 2 / f.
    assert 2 * (np.mean(found) / np.std(found)) ** 2 == pytest.approx(block_dof(20, 4), rel=0.3)
    assert block_variance(d[:3], 4) == pytest.approx(sum(found[:3]))


def test_length_follows_theory() -> None:
    rng, num = np.random.default_rng(2), 2000
    lengths = [block_length(x - x.mean()) for x in autoregressive(rng, 0.5, 40, num)]
    g, density = 2 * 0.5 / 0.5**2, 1.5 / 0.5
    best = (2 * g**2 / (4 / 3 * density**2)) ** (1 / 3) * num ** (1 / 3)
    assert np.median(lengths) == pytest.approx(2 * best, rel=0.25)
    white = [block_length(x - x.mean()) for x in rng.standard_normal((40, num))]
    assert np.median(white) < np.median(lengths) / 3
    assert block_length(np.zeros(50)) == 1
    assert block_length(np.array([1.0, -1.0, 1.0, -1.0])) == 1


def test_only_stretches_of_a_text_are_neighbours() -> None:
    assert places(np.array(["0:1024", "1024:2048"], dtype=object)).tolist() == [0, 1024]
    for items in (["0", "1"], ["0:1024", "page"], ["task 1:2", "task 3:4"], [3, 4]):
        assert places(np.array(items, dtype=object)) is None


def test_intervals_of_windows_cover_where_those_of_items_do_not() -> None:
    rng = np.random.default_rng(3)
    hits = np.zeros(2)
    for x in autoregressive(rng, 0.4, 300, 200):
        independent = Sample(float(x.mean()), "linear", np.arange(200), x - x.mean())
        for place, sample in enumerate((windows(x), independent)):
            found = summarise([sample])
            assert found.low is not None
            assert found.high is not None
            hits[place] += found.low <= 0 <= found.high
    assert hits[0] / 300 > 0.9
    assert hits[1] / 300 < 0.85


def test_windows_pair_by_place_whatever_their_order() -> None:
    a, b = autoregressive(np.random.default_rng(4), 0.6, 2, 120)
    whole = compare({0: windows(a)}, {0: windows(b)})
    order = np.random.default_rng(5).permutation(120)
    other = windows(b)
    assert other.items is not None
    assert other.influence_N is not None
    assert other.place_N is not None
    shuffled = Sample(other.value, "linear", other.items[order], other.influence_N[order], place_N=other.place_N[order])
    mixed = compare({0: windows(a)}, {0: shuffled})
    assert (mixed.low, mixed.p_value) == pytest.approx((whole.low, whole.p_value))
    assert whole.spread is not None
    assert whole.spread.error > np.std(a - b, ddof=1) / np.sqrt(120)


def test_neighbours_that_cancel_never_narrow_an_interval() -> None:
    x = np.tile([1.0, -1.0], 50) + 0.01 * np.random.default_rng(6).standard_normal(100)
    found, independent = summarise([windows(x)]), x.std(ddof=1) / 10
    assert found.high is not None
    assert found.high - found.value > 1.9 * independent
