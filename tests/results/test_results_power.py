"""The smallest difference that is found, effect sizes and A/A noise, against simulation and scipy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.stats

from results.board import board
from results.formatting import resolution
from results.items import Sample
from results.json_view import dumps
from results.power import detectable, seed_noise, smallest_difference
from results.spread import Spread
from results.statistics import compare, summarise
from results.table import markdown


def test_a_difference_of_that_size_is_found_four_times_of_five() -> None:
    num, trials = 20, 3000
    spread = Spread("items only", items=1 / num, items_dof=num - 1)
    shift = smallest_difference(spread, 0.01)
    x = shift + np.random.default_rng(0).standard_normal((trials, num))
    found = scipy.stats.ttest_1samp(x, 0, axis=1).pvalue < 0.01
    assert found.mean() == pytest.approx(0.8, abs=0.03)


def test_few_seeds_need_more_than_the_sum_of_two_quantiles() -> None:
    spread = Spread("seeds only", seeds=4.0, seeds_dof=4)
    shift = smallest_difference(spread, 0.005) / 2
    critical = scipy.stats.t.isf(0.0025, 4)
    assert scipy.stats.nct.sf(critical, 4, shift) == pytest.approx(0.8, abs=1e-6)
    assert shift > critical + scipy.stats.t.isf(0.2, 4)


def test_the_median_pair_speaks_for_a_column() -> None:
    spreads = [Spread("items only", items=v, items_dof=50) for v in (9.0, 1.0, 4.0)]
    found = detectable(spreads, 4, [[1.0]])
    assert found is not None
    assert found.single == smallest_difference(spreads[2], 0.05)
    assert found.corrected == smallest_difference(spreads[2], 0.05 / 4)
    assert (found.pairs, found.noise) == (4, None)
    assert detectable([], 0, [[1.0], [2.0]]) is None


def test_noise_bounds_the_difference_of_two_seeds() -> None:
    rng = np.random.default_rng(1)
    rows = [list(3 + 0.2 * rng.standard_normal(400)) for _ in range(10)]
    bound = seed_noise(rows)
    assert bound is not None
    pairs = np.abs(np.diff(np.array(rows).reshape(-1, 2), axis=1))
    assert (pairs < bound).mean() == pytest.approx(0.95, abs=0.02)
    assert seed_noise([*rows, [5.0, 5.0, 5.0]]) == bound
    assert seed_noise([[1.0, 2.0]]) == pytest.approx(scipy.stats.t.ppf(0.975, 1))
    assert seed_noise([[1.0], [2.0, 2.0], [float("nan"), 1.0]]) is None


def test_effect_sizes() -> None:
    a, b = np.random.default_rng(2).standard_normal((2, 2, 30))
    rows = [
        {s: Sample(float(x.mean()), "linear", np.arange(30), x - x.mean()) for s, x in enumerate(r)} for r in (a, b)
    ]
    d = (a - b).mean(axis=0)
    assert compare(*rows).effect == pytest.approx(d.mean() / d.std(ddof=1))
    assert compare({0: Sample(1.0), 1: Sample(1.5)}, {0: Sample(2.0), 1: Sample(2.1)}).effect is None


def test_a_board_says_what_it_can_show(finished: Any) -> None:
    tab = board(finished).tabs[0]
    ppl = tab.columns[0]
    found = tab.detectable[ppl.key]
    assert found.pairs == 3
    assert found.single is not None
    assert found.corrected is not None
    assert found.noise is not None
    assert found.single < found.corrected
    errors = sorted(c.error for c in tab.comparisons if c.column == ppl.key and c.error is not None)
    assert found.single > 2 * errors[1]
    lines = resolution(tab)
    assert len(lines) == len(tab.columns)
    assert "% after Holm over 3 pairs; two seeds of one row differ by up to" in lines[0]
    assert "smallest difference it can show" in markdown(board(finished))
    assert '"detectable"' in dumps(board(finished))


def test_one_row_has_noise_alone(reader: Any, sweep: Any) -> None:
    for seed in (0, 1):
        sweep.add("aaaaaaaa", "low_rank", seed=seed)
    (tab,) = board(reader).tabs
    found = tab.detectable[tab.columns[0].key]
    values = [np.log(v) for v in tab.rows[0].scores[tab.columns[0].key].by_seed.values()]
    assert found.noise == pytest.approx(scipy.stats.t.ppf(0.975, 1) * abs(values[0] - values[1]))
    assert (found.single, found.pairs) == (None, 0)
    assert "up to" in resolution(tab)[0]
    assert "smallest" not in resolution(tab)[0]
    assert summarise([Sample(1.0)]).low is None
