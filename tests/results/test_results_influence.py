"""Closed forms against brute force and scikit-learn / scipy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from results.influence import candidates, f1, matthews, mean, pearson, ratio, spearman
from results.items import sample_of

RNG = np.random.default_rng(1)
N = 40
LABEL = RNG.integers(0, 3, N)
GUESS = np.where(RNG.random(N) < 0.6, LABEL, RNG.integers(0, 3, N))
X = RNG.standard_normal(N)
Y = X + RNG.standard_normal(N)

CASES: list[tuple[Callable[..., Any], Callable[..., float], Any, Any]] = [
    (matthews, lambda g, t: sklearn.metrics.matthews_corrcoef(t, g), GUESS, LABEL),
    (matthews, lambda g, t: sklearn.metrics.matthews_corrcoef(t, g), GUESS > 0, LABEL > 0),
    (f1, lambda g, t: sklearn.metrics.f1_score(t, g), (GUESS > 0).astype(int), (LABEL > 0).astype(int)),
    (pearson, lambda x, y: float(scipy.stats.pearsonr(x, y)[0]), X, Y),
]


@pytest.mark.parametrize(("ours", "reference", "a", "b"), CASES)
def test_jackknife_equals_leaving_out_each_item(ours: Any, reference: Any, a: Any, b: Any) -> None:
    value, influence = ours(a, b)
    whole = reference(a, b)
    without = np.array([reference(np.delete(a, i), np.delete(b, i)) for i in range(N)])
    expected = (N - 1) * (whole - without)
    assert value == pytest.approx(whole, abs=1e-12)
    np.testing.assert_allclose(influence, expected - expected.mean(), atol=1e-10)


def test_ratio_variance_is_close_to_the_jackknife_and_to_simulation() -> None:
    weight = RNG.integers(50, 300, 200).astype(float)
    nll = weight * (3 + 0.3 * RNG.standard_normal(200))
    value, influence = ratio(nll, weight)
    assert value == nll.sum() / weight.sum()
    draws = np.random.default_rng(2).integers(0, 200, (4000, 200))
    bootstrap = (nll[draws].sum(1) / weight[draws].sum(1)).std()
    assert np.sqrt((influence**2).sum() / (200 * 199)) == pytest.approx(bootstrap, rel=0.05)


def test_items_with_likelihoods_and_hits_explain_both_metrics() -> None:
    """LAMBADA's passages; and windows whose means are averaged."""
    draw = np.random.default_rng(3)
    nll, tokens = draw.uniform(1, 9, 50), draw.integers(1, 20, 50)
    items = {"item": np.arange(50).astype(str), "nll": nll, "words": np.ones(50), "correct": np.arange(50) % 2 * 1.0}
    assert sample_of("ppl", float(np.exp(nll.mean())), items).scale == "log"
    assert sample_of("accuracy", 0.5, items).scale == "proportion"
    found = sample_of(
        "window_ppl", float(np.exp((nll / tokens).mean())), {"item": items["item"], "nll": nll, "tokens": tokens}
    )
    assert found.influence_N is not None
    np.testing.assert_allclose(found.influence_N, nll / tokens - (nll / tokens).mean())
    assert sample_of("ppl", 2.0, items).missing == "items do not reproduce the value"


def test_mean_influence_gives_the_textbook_standard_error() -> None:
    _, influence = mean(X)
    assert np.sqrt((influence**2).sum() / (N * (N - 1))) == pytest.approx(scipy.stats.sem(X))


def test_spearman_handles_ties_and_its_error_is_near_the_exact_jackknife() -> None:
    x = np.round(RNG.standard_normal(300), 1)
    y = x + RNG.standard_normal(300)
    value, influence = spearman(x, y)
    exact = [scipy.stats.spearmanr(np.delete(x, i), np.delete(y, i))[0] for i in range(300)]
    assert value == pytest.approx(scipy.stats.spearmanr(x, y)[0])
    ours = np.sqrt((influence**2).sum() / (300 * 299))
    theirs = np.sqrt(299 / 300 * np.var(exact) * 300)
    assert ours == pytest.approx(theirs, rel=0.15)


@pytest.mark.parametrize("rule", [matthews, f1])
def test_a_constant_prediction_is_worth_nothing_and_has_no_infinite_influence(rule: Any) -> None:
    value, influence = rule(np.zeros(5, int), np.array([0, 1, 1, 0, 1]))
    assert value == 0
    assert np.isfinite(influence).all()


def test_each_reading_of_a_perplexity_is_tried() -> None:
    columns = {"nll": np.array([2.0, 6.0]), "words": np.array([1, 2]), "tokens": np.array([2, 4])}
    assert [value for value, _ in candidates("word_perplexity", columns)] == pytest.approx(
        [8 / 3, 2.5, 8 / 6, 1.25, 4.0]
    )
    bits = [value for value, _ in candidates("bits_per_word", columns)]
    assert bits[0] == pytest.approx(8 / 3 / np.log(2))


def test_a_column_that_is_called_as_the_metric_comes_first() -> None:
    columns = {"correct": np.array([1, 0, 1, 1]), "acc_norm": np.array([0, 0, 1, 0])}
    assert [value for value, _ in candidates("acc_norm", columns)] == [0.25, 0.75]


def test_a_compound_metric_is_the_mean_of_its_parts() -> None:
    guess, label = (GUESS > 0).astype(int), (LABEL > 0).astype(int)
    columns = {"prediction": guess, "label": label, "correct": guess == label}
    ((value, influence),) = candidates("acc_and_f1", columns)
    expected = (sklearn.metrics.accuracy_score(label, guess) + sklearn.metrics.f1_score(label, guess)) / 2
    assert value == pytest.approx(expected)
    assert influence.sum() == pytest.approx(0, abs=1e-9)
