"""The paired bootstrap, against scipy's on the same draws, against enumeration and against closed forms."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from results import bootstrap, influence
from results.board import board
from results.bootstrap import item_counts, percentile_limits, share_best
from results.formatting import cell
from results.items import Sample
from results.resampled import SUMS, item_limits, sums_of
from results.show import as_json, show

RNG = np.random.default_rng(0)


def sfc(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(seed))


@pytest.mark.parametrize("chunk", [2**21, 70])
def test_limits_are_scipys_on_the_same_draws(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(bootstrap, "CHUNK", chunk)
    x = RNG.standard_normal((5, 30))
    theirs = scipy.stats.bootstrap(
        (x,), np.mean, axis=1, vectorized=True, method="percentile", n_resamples=400, batch=7, rng=sfc(3)
    ).confidence_interval
    low, high = percentile_limits(x.T, resamples=400, seed=3)
    np.testing.assert_allclose([low, high], [theirs.low, theirs.high], rtol=1e-12, atol=1e-12)


def test_counts_are_multinomial() -> None:
    counts = np.concatenate(list(item_counts(sfc(), 4, 20_000)))
    assert (counts.sum(axis=1) == 4).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(4), abs=0.02)
    assert np.cov(counts.T) == pytest.approx(np.eye(4) - 1 / 4, abs=0.03)
    # All four items once: 4! / 4^4.
    assert (counts == 1).all(axis=1).mean() == pytest.approx(24 / 256, abs=0.01)


def test_blocks_are_whole_and_run_round() -> None:
    for counts in item_counts(sfc(), 7, 300, length=3):
        assert (counts.sum(axis=1) == 7).all()
    counts = np.concatenate(list(item_counts(sfc(), 6, 4000, length=6)))
    assert (counts == 1).all()
    x = RNG.standard_normal((6, 1))
    means = np.concatenate([c @ x for c in item_counts(sfc(), 6, 20_000, length=2)])[:, 0] / 6
    blocks = [np.take(x[:, 0], [start, start + 1], mode="wrap") for start in range(6)]
    exact = np.var([np.concatenate(drawn).mean() for drawn in product(blocks, repeat=3)])
    assert means.var() == pytest.approx(exact, rel=0.05)


def test_the_share_of_two_rows_is_close_to_the_normal_one() -> None:
    x = RNG.standard_normal((2, 1, 400)) + np.array([0.04, 0.0])[:, None, None]
    value = x.mean(axis=2)
    shares = share_best(value, x - value[:, :, None], resamples=4000)
    d = x[0, 0] - x[1, 0]
    assert shares[0] == pytest.approx(scipy.stats.norm.cdf(d.mean() / d.std() * 20), abs=0.03)
    assert shares.sum() == pytest.approx(1)
    assert (share_best(value, x - value[:, :, None]) == share_best(value, x - value[:, :, None])).all()


def test_seeds_are_drawn_too_and_rows_that_are_one_share() -> None:
    items = np.zeros((3, 2, 10))
    value = np.array([[0.0, 1.0], [0.6, 0.6], [0.6, 0.6]])
    # The first is behind, 0, in a quarter of the draws, at 0.5 in a half, and at 1 in a quarter.
    shares = share_best(value, items, resamples=8000)
    assert shares == pytest.approx([0.25, 0.375, 0.375], abs=0.02)
    assert shares[1] == shares[2]


def test_a_board_has_the_share_of_rows_that_may_be_first(finished: Any) -> None:
    tab = board(finished).tabs[0]
    for column in tab.columns:
        for group in tab.groups:
            found = [row.scores[column.key].best for row in group.rows if column.key in row.scores]
            if len(found) > 1:
                assert sum(share or 0 for share in found) == pytest.approx(1)
            else:
                assert found == [None]
    rows = {row.id: row for row in tab.rows}
    assert "#1–2 (" in cell(rows["00aaaaaa"], tab.columns[0])
    assert cell(rows["02aaaaaa"], tab.columns[0]).split("]")[1].strip() == "#3"


GUESS = np.where(RNG.random(60) < 0.6, RNG.integers(0, 3, 60), 1)
LABEL = RNG.integers(0, 3, 60)
X, Y = RNG.standard_normal((2, 60))
W = RNG.integers(1, 9, 60).astype(float)


@pytest.mark.parametrize(
    ("rule", "arrays", "reference"),
    [
        (influence.mean, (X,), np.mean),
        (influence.ratio, (X, W), lambda x, w: x.sum() / w.sum()),
        (influence.matthews, (GUESS, LABEL), lambda g, t: sklearn.metrics.matthews_corrcoef(t, g)),
        (influence.f1, (GUESS, LABEL), lambda g, t: sklearn.metrics.f1_score(t == 1, g == 1)),
        (influence.pearson, (X, Y), lambda x, y: scipy.stats.pearsonr(x, y)[0]),
        (influence.spearman, (X, Y), None),
    ],
)
def test_metrics_of_resamples_are_those_of_repeated_items(rule: Any, arrays: Any, reference: Any) -> None:
    values, of_means = sums_of(((rule, *arrays),))
    assert of_means(values.mean(axis=0)[None])[0] == pytest.approx(rule(*arrays)[0])
    drawn = np.random.default_rng(1).integers(0, 60, (20, 60))
    counts = np.array([np.bincount(row, minlength=60) for row in drawn])
    if reference is None:
        ranks = [scipy.stats.rankdata(each) for each in arrays]
        expected = [scipy.stats.pearsonr(*(each[row] for each in ranks))[0] for row in drawn]
    else:
        expected = [reference(*(each[row] for each in arrays)) for row in drawn]
    assert of_means(counts @ values / 60) == pytest.approx(expected)
    assert rule in SUMS


def test_a_row_shows_what_resampled_items_make_of_it(finished: Any) -> None:
    shown = show(finished, "00aaaaaa")
    assert set(shown.resampled) == {column.key for column in shown.columns if column.main}
    for key, (low, high) in shown.resampled.items():
        summary = shown.row.scores[key].summary
        assert low < summary.value < high
        assert summary.low is not None
        assert summary.high is not None
        assert (high - low) == pytest.approx(summary.high - summary.low, rel=0.5)
    assert '"resampled"' in as_json(shown)


def test_limits_need_the_same_items_in_each_seed(finished: Any) -> None:
    measured = [r.measured[0] for r in finished.records() if r.row == "00aaaaaa"]
    samples = [Sample(1.0, "log", np.arange(3), np.zeros(3)), Sample(1.0, "log")]
    assert item_limits(measured, samples, finished) is None
