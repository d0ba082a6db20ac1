"""Known answers, and coverage in simulation."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from results.items import Sample
from results.spread import Spread
from results.statistics import compare, holm, summarise, wilson


def mean_sample(x: np.ndarray, scale: str = "linear") -> Sample:
    return Sample(float(x.mean()), scale, np.arange(len(x)), x - x.mean())  # type: ignore[arg-type]


def two_way(rng: np.random.Generator, seeds: int, items: int, s: float, i: float, e: float) -> np.ndarray:
    noise = e * rng.standard_normal((seeds, items))
    return 1 + s * rng.standard_normal((seeds, 1)) + i * rng.standard_normal(items) + noise


def test_one_seed_is_a_one_sample_t_interval_and_says_so() -> None:
    x = np.random.default_rng(0).standard_normal(25)
    found = summarise([mean_sample(x)])
    expected = scipy.stats.t.interval(0.95, 24, x.mean(), scipy.stats.sem(x))
    assert (found.low, found.high) == pytest.approx(expected)
    assert (found.basis, found.seeds, found.items) == ("items only", 1, 25)


def test_without_items_seeds_alone_carry_the_interval() -> None:
    found = summarise([Sample(1.0), Sample(2.0), Sample(4.0)])
    expected = scipy.stats.t.interval(0.95, 2, 7 / 3, scipy.stats.sem([1, 2, 4]))
    assert (found.low, found.high) == pytest.approx(expected)
    assert found.basis == "seeds only"


def test_one_seed_without_items_has_no_interval() -> None:
    found = summarise([Sample(3.0, missing="no items stored")])
    assert (found.low, found.high, found.basis, found.note) == (None, None, "no interval", "no items stored")


def test_wilson_matches_scipy() -> None:
    exact = scipy.stats.binomtest(7, 10).proportion_ci(0.95, "wilson")
    assert wilson(0.7, 10) == pytest.approx((exact.low, exact.high))
    correct = np.array([1.0] * 7 + [0.0] * 3)
    found = summarise([mean_sample(correct, "proportion")])
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))


def test_perplexities_average_geometrically_and_their_interval_is_positive() -> None:
    found = summarise([Sample(np.log(10.0), "log"), Sample(np.log(40.0), "log")])
    assert found.value == pytest.approx(20.0)
    assert found.low is not None
    assert found.low > 0


@pytest.mark.parametrize(("seeds", "s", "i", "e"), [(3, 0.1, 1.0, 0.5), (5, 0.3, 0.5, 0.5), (4, 0.02, 1.0, 1.0)])
def test_two_way_interval_covers_the_truth(seeds: int, s: float, i: float, e: float) -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(400):
        found = summarise([mean_sample(row) for row in two_way(rng, seeds, 60, s, i, e)])
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 1 <= found.high
    assert 0.92 <= hits / 400 <= 0.995


def test_items_alone_would_not_cover_when_seeds_vary() -> None:
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(300):
        found = summarise([mean_sample(two_way(rng, 1, 60, 0.5, 0.5, 0.2)[0])])
        hits += (found.low or 0) <= 1 <= (found.high or 0)
    assert hits / 300 < 0.6


def test_paired_comparison_of_one_seed_is_the_paired_t_test() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.standard_normal((2, 30))
    found = compare({0: mean_sample(a)}, {0: mean_sample(b)})
    assert found.p_value == pytest.approx(scipy.stats.ttest_rel(a, b).pvalue)
    assert found.difference == pytest.approx(a.mean() - b.mean())


def test_pairing_uses_common_items_and_common_seeds() -> None:
    rng = np.random.default_rng(6)
    a, b = rng.standard_normal((2, 30))
    order = rng.permutation(30)[:20]
    shuffled = Sample(float(b.mean()), "linear", order, (b - b.mean())[order])
    found = compare({0: mean_sample(a), 1: mean_sample(b)}, {0: shuffled, 2: mean_sample(a)})
    d = (a - a.mean() - b + b.mean())[np.sort(order)]
    assert found.basis == "items only"
    expected = 2 * scipy.stats.t.sf(abs(a.mean() - b.mean()) / scipy.stats.sem(d), 19)
    assert found.p_value == pytest.approx(expected)


def test_false_positives_stay_at_five_per_cent() -> None:
    rng = np.random.default_rng(7)
    rejected = 0
    for _ in range(400):
        item = rng.standard_normal(50)
        a, b = (item + two_way(rng, 3, 50, 0.2, 0, 0.5) for _ in range(2))
        found = compare(dict(enumerate(map(mean_sample, a))), dict(enumerate(map(mean_sample, b))))
        assert found.p_value is not None
        rejected += found.p_value < 0.05
    assert rejected / 400 <= 0.075


def test_pairs_that_cannot_be_tested_have_no_p_value() -> None:
    assert compare({0: Sample(1.0)}, {1: Sample(2.0)}).p_value is None
    assert compare({0: Sample(1.0)}, {0: Sample(2.0)}).p_value is None
    assert compare({0: Sample(1.0), 1: Sample(1.0)}, {0: Sample(2.0), 1: Sample(2.0)}).p_value is None
    assert compare({0: Sample(float("inf"))}, {0: Sample(2.0)}).p_value is None


def test_identical_rows_do_not_differ() -> None:
    x = mean_sample(np.arange(5.0))
    assert compare({0: x}, {0: x}).p_value == 1.0


def test_holm_known_answer() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def test_two_way_interval_is_the_anova_of_a_crossed_layout() -> None:
    x = two_way(np.random.default_rng(8), 4, 30, 0.4, 0.5, 0.3)
    num_seeds, num_items = x.shape
    row, column = x.mean(1, keepdims=True), x.mean(0, keepdims=True)
    ms_seed = num_items * ((row - x.mean()) ** 2).sum() / (num_seeds - 1)
    ms_item = num_seeds * ((column - x.mean()) ** 2).sum() / (num_items - 1)
    ms_both = ((x - row - column + x.mean()) ** 2).sum() / ((num_seeds - 1) * (num_items - 1))
    from_seeds, beyond = ms_seed / x.size, (ms_item - ms_both) / x.size
    half = Spread("", from_seeds, beyond, num_seeds - 1, num_items - 1).half_width(0.05)
    assert np.sqrt((ms_seed + ms_item - ms_both) / x.size) * 1.96 < half
    found = summarise([mean_sample(seed) for seed in x])
    assert found.basis == "seeds and items"
    assert (found.low, found.high) == pytest.approx((x.mean() - half, x.mean() + half))


def test_two_way_variance_never_falls_below_its_parts() -> None:
    x = np.array([[0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0]])
    found = summarise([mean_sample(seed) for seed in x])
    assert (found.low, found.high) == (0.5, 0.5)
    x[1, 0] = 0.0
    found = summarise([mean_sample(seed) for seed in x])
    assert found.high is not None
    assert found.high > found.value
