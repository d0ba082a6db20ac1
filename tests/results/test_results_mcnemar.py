"""McNemar's exact test, against scipy's binomial test and by enumeration."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from results import mcnemar
from results.items import Sample, sample_of
from results.statistics import compare


def answers(right: np.ndarray) -> Sample:
    return sample_of("accuracy", float(right.mean()), {"item": np.arange(len(right)), "correct": right})


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (0, 5), (6, 6), (3, 14), (400, 330)])
def test_p_value_is_the_binomial_tests(b: int, c: int) -> None:
    expected = scipy.stats.binomtest(b, b + c).pvalue if b + c else 1.0
    assert mcnemar.p_value(b, c) == pytest.approx(expected)


@pytest.mark.parametrize(("b", "c"), [(1, 0), (0, 5), (3, 14), (40, 33)])
def test_limits_are_clopper_and_pearsons(b: int, c: int) -> None:
    exact = scipy.stats.binomtest(b, b + c).proportion_ci(0.95, "exact")
    expected = [(2 * theta - 1) * (b + c) / 200 for theta in exact]
    assert mcnemar.limits(b, c, 200, 0.05) == pytest.approx(expected)


def test_one_seed_of_an_accuracy_is_compared_by_it() -> None:
    a, b = (np.repeat(each, (60, 12, 3, 25)) for each in ([1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.0]))
    found = compare({0: answers(a)}, {0: answers(b)})
    assert found.p_value == pytest.approx(scipy.stats.binomtest(12, 15).pvalue)
    assert found.difference == pytest.approx(0.09)
    assert found.effect == pytest.approx(2 * np.arcsin(np.sqrt(0.72)) - 2 * np.arcsin(np.sqrt(0.63)))
    assert found.low is not None
    assert found.low > 0
    assert found.p_value < 0.05
    # As many discordant items, less one-sided: the interval and the test agree here, too.
    a, b = (np.repeat(each, (60, 11, 4, 25)) for each in ([1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.0]))
    found = compare({0: answers(a)}, {0: answers(b)})
    assert found.p_value is not None
    assert found.low is not None
    assert found.p_value > 0.05
    assert found.low < 0


def test_several_seeds_are_not_one_test_per_item() -> None:
    rng = np.random.default_rng(0)
    a, b = ({seed: answers((rng.random(80) < p).astype(float)) for seed in (0, 1)} for p in (0.8, 0.7))
    found = compare(a, b)
    assert found.basis == "seeds and items"
    assert found.spread is not None
    assert found.p_value == pytest.approx(found.spread.p_value(found.difference))


def test_rows_that_answer_all_alike() -> None:
    right, wrong = answers(np.ones(10)), answers(np.zeros(10))
    assert compare({0: right}, {0: right}).p_value == 1.0
    found = compare({0: right}, {0: wrong})
    assert found.p_value == pytest.approx(scipy.stats.binomtest(10, 10).pvalue)


def test_only_common_examples_count() -> None:
    rng = np.random.default_rng(1)
    a, b = (rng.random(100) < 0.9).astype(float), (rng.random(100) < 0.6).astype(float)
    part = sample_of("accuracy", float(b[30:].mean()), {"item": np.arange(30, 100), "correct": b[30:]})
    better, worse = int(((a > b)[30:]).sum()), int(((a < b)[30:]).sum())
    expected = scipy.stats.binomtest(better, better + worse).pvalue
    assert compare({0: answers(a)}, {0: part}).p_value == pytest.approx(expected)
