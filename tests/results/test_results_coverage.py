"""Simulated boards: how often intervals hold the truth, and how often equal rows are separated."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import scipy.stats

BOARDS = 2000


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    path = Path(__file__).parents[1] / "bench" / "bench_coverage.py"
    spec = spec_from_file_location("bench_coverage", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = module_from_spec(spec)  # a dataclass looks its module up there
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("metric", ["nll", "accuracy"])
def test_boards_are_drawn_as_their_setting_says(bench: Any, metric: str) -> None:
    setting = bench.Setting(metric=metric, rows=2, items=100, seed_share=0.5)
    rng = np.random.default_rng(0)
    means = np.array([bench.draw(rng, setting).mean(axis=(1, 2)) for _ in range(1500)])
    assert means.mean() == pytest.approx(bench.truth(setting), abs=4 * means.std() / np.sqrt(1500))
    assert np.corrcoef(means.T)[0, 1] > 0.3
    if metric == "nll":
        of_items = (setting.item**2 + setting.row_item**2 + setting.residual**2 / 5) / 100
        assert means.var(axis=0).mean() == pytest.approx(2 * of_items, rel=0.1)


@pytest.mark.parametrize("metric", ["nll", "accuracy"])
def test_a_few_boards_hold_the_truth(bench: Any, metric: str) -> None:
    rows, differences, separated = bench.coverage(bench.Setting(metric=metric, rows=2, items=200), 300, 1)
    # Less than 0.915 of 300 would be seen once in 200 times at 95 %.
    assert min(rows, differences) > 0.915
    assert separated == pytest.approx(1 - differences, abs=0.01)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("metric", ["nll", "accuracy"])
@pytest.mark.parametrize("seed_share", [0.05, 0.2, 0.5, 0.8])
def test_intervals_of_five_seeds_and_500_items_hold_the_truth(bench: Any, metric: str, seed_share: float) -> None:
    rows, differences, separated = bench.coverage(bench.Setting(metric=metric, seed_share=seed_share), BOARDS, 0)
    assert 0.93 <= rows <= 0.97
    # Where seeds bring next to nothing, a difference's interval is up to a tenth too wide.
    assert 0.93 <= differences <= (0.97 if seed_share >= 0.2 else 0.985)
    assert bench.upper_limit(separated, BOARDS) <= 0.065


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("metric", ["nll", "accuracy"])
@pytest.mark.parametrize(("seeds", "rows"), [(5, 10), (3, 4), (2, 4)])
def test_equal_rows_are_seldom_separated(bench: Any, metric: str, seeds: int, rows: int) -> None:
    setting = bench.Setting(metric=metric, seeds=seeds, rows=rows, seed_share=0.5)
    covered, _, separated = bench.coverage(setting, BOARDS, 0)
    assert bench.upper_limit(separated, BOARDS) <= 0.065
    assert covered >= 0.93


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_windows_in_blocks_hold_the_truth(bench: Any) -> None:
    setting = bench.Setting(metric="nll", memory=0.4)
    rows, _, separated = bench.coverage(setting, BOARDS, 0)
    assert 0.93 <= rows <= 0.97
    assert bench.upper_limit(separated, BOARDS) <= 0.065
    ignored, _, _ = bench.coverage(bench.Setting(metric="nll", memory=0.4, blocks=False), BOARDS // 4, 0)
    assert ignored < rows - 0.03


def test_the_upper_limit_is_clopper_and_pearsons(bench: Any) -> None:
    assert bench.upper_limit(0.05, 2000) == pytest.approx(scipy.stats.beta.ppf(0.975, 101, 1900))
