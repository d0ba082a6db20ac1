"""Coverage of the intervals, and how often a board separates rows that are equal, by simulation.

    python tests/bench/bench_coverage.py [--boards 2000] [--seed 0]

A board has rows r, seeds s and items i. A row's score of an item is

    x_rsi = mu + share of (item_i, row x item_ri, seed_s, row x seed_rs, residual_rsi)

so that rows share items (a hard page is hard for all), seeds (the same order of training data) and are trained apart.
Negative log-likelihoods have item effects of a skewed and residuals of a heavy-tailed distribution (gamma with shape 2;
Student's t with 5 degrees of freedom). Correct answers are 1 where a sum of Gaussian effects stays below a limit, so
that their expectation is known. Windows of a text are correlated with their neighbours, and once taken for what they
are, once for independent items. `seeds %` is how much of the variance of a row's mean is due to seeds.

Printed: per setting the share of 95 % intervals that hold the truth (of rows, and of differences between two rows),
and the share of boards of equal rows on which some pair is separated after Holm's correction, with its upper 95 % limit
by Clopper & Pearson.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from results.items import Sample
from results.pairwise import compare_all
from results.statistics import SIGNIFICANCE, holm, summarise

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What boards are drawn from."""

    metric: str
    """`nll` or `accuracy`."""
    seeds: int = 5
    items: int = 500
    rows: int = 4
    seed_share: float = 0.2
    """Of the variance of one row's mean, what seeds bring."""
    item: float = 1.0
    row_item: float = 0.3
    residual: float = 0.5
    shared: float = 0.3
    """Of the seeds' variance, what all rows share."""
    mean: float = 3.4
    accuracy: float = 0.7
    memory: float = 0.0
    """Correlation of neighbouring items, which then are windows of a text: every effect of theirs is an AR(1)."""
    blocks: bool = True
    """False takes windows for independent."""

    @property
    def name(self) -> str:
        windows = f"windows {self.memory}, {'blocks' if self.blocks else 'ignored'}" if self.memory else ""
        size = f"{self.rows:2} rows x {self.seeds} seeds x {self.items}"
        return f"{self.metric:8} {size}  seeds {100 * self.seed_share:2.0f} %  {windows}"

    @property
    def seed(self) -> float:
        """Standard deviation of a seed's effect on one score."""
        of_items = (self.item**2 + self.row_item**2 + self.residual**2 / self.seeds) / self.items
        return float(np.sqrt(self.seeds * of_items * self.seed_share / (1 - self.seed_share)))


def draw(rng: np.random.Generator, setting: Setting) -> Floats:
    """The scores of one board of equal rows: (row, seed, item)."""
    r, s, n = setting.rows, setting.seeds, setting.items
    gaussian = setting.metric == "accuracy"
    item_N = rng.standard_normal(n) if gaussian else (rng.gamma(2.0, size=n) - 2) / np.sqrt(2)
    noise_RSN = rng.standard_normal((r, s, n)) if gaussian else rng.standard_t(5, size=(r, s, n)) / np.sqrt(5 / 3)
    own, common = np.sqrt(1 - setting.shared), np.sqrt(setting.shared)
    seed_RS = setting.seed * (own * rng.standard_normal((r, s)) + common * rng.standard_normal(s))
    row_item_RN = setting.row_item * rng.standard_normal((r, n))
    total_RSN = setting.item * item_N + row_item_RN[:, None] + seed_RS[:, :, None] + setting.residual * noise_RSN
    if gaussian:
        return (total_RSN < limit(setting)).astype(np.float64)
    if setting.memory:
        return setting.mean + neighbours(item_N, row_item_RN, noise_RSN, setting) + seed_RS[:, :, None]
    return setting.mean + total_RSN


def neighbours(item_N: Floats, row_item_RN: Floats, noise_RSN: Floats, setting: Setting) -> Floats:
    """The effects of items, each an AR(1) with the variance that it has without memory."""
    from scipy.signal import lfilter

    drawn_RSN = setting.item * item_N + row_item_RN[:, None] + setting.residual * noise_RSN
    drawn_RSN[..., 1:] *= np.sqrt(1 - setting.memory**2)
    return np.asarray(lfilter([1.0], [1.0, -setting.memory], drawn_RSN, axis=-1))


def limit(setting: Setting) -> float:
    """Below it a sum of effects counts as a right answer."""
    from scipy.stats import norm

    spread = np.sqrt(setting.item**2 + setting.row_item**2 + setting.residual**2 + setting.seed**2)
    return float(norm.ppf(setting.accuracy) * spread)


def truth(setting: Setting) -> float:
    return setting.accuracy if setting.metric == "accuracy" else setting.mean


def samples(x_RSN: Floats, setting: Setting) -> Iterator[dict[int, Sample]]:
    """What the board would hold of each row."""
    scale = "proportion" if setting.metric == "accuracy" else "linear"
    items = np.arange(x_RSN.shape[2])
    place_N = items if setting.memory and setting.blocks else None
    for x_SN in x_RSN:
        yield {
            s: Sample(float(x_N.mean()), scale, items, x_N - x_N.mean(), place_N=place_N) for s, x_N in enumerate(x_SN)
        }


def coverage(setting: Setting, boards: int, seed: int) -> tuple[float, float, float]:
    """Shares of boards' first rows and first differences whose interval holds the truth; of separated boards."""
    rng = np.random.default_rng(seed)
    of_rows = of_differences = separated = 0
    for _ in range(boards):
        rows = list(samples(draw(rng, setting), setting))
        first = summarise(list(rows[0].values()))
        assert first.low is not None
        assert first.high is not None
        of_rows += first.low <= truth(setting) <= first.high
        pairs = compare_all(rows)
        assert pairs[0].low is not None
        assert pairs[0].high is not None
        of_differences += pairs[0].low <= 0 <= pairs[0].high
        separated += min(holm([pair.p_value for pair in pairs if pair.p_value is not None])) < SIGNIFICANCE
    return of_rows / boards, of_differences / boards, separated / boards


def upper_limit(share: float, boards: int) -> float:
    """Upper limit of the two-sided 95 % interval of a share (Clopper & Pearson, Biometrika 26, 1934)."""
    from scipy.stats import binomtest

    return float(binomtest(round(share * boards), boards).proportion_ci(0.95, "exact").high)


def settings() -> Iterator[Setting]:
    for metric in ("nll", "accuracy"):
        for share in (0.0, 0.05, 0.2, 0.5, 0.8):
            yield Setting(metric=metric, seed_share=share)
        yield Setting(metric=metric, seed_share=0.5, rows=10)
        yield Setting(metric=metric, seeds=3)
        yield Setting(metric=metric, seeds=3, seed_share=0.5)
        yield Setting(metric=metric, seeds=2, seed_share=0.5)
        yield Setting(metric=metric, seeds=1, seed_share=0.0)
        yield Setting(metric=metric, seeds=1)
    for seeds, items, share in ((5, 500, 0.2), (1, 500, 0.0), (1, 100, 0.0)):
        for blocks in (True, False):
            yield Setting(metric="nll", seeds=seeds, items=items, seed_share=share, memory=0.4, blocks=blocks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boards", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(f"{'setting':60} rows   differences  separated (upper limit)", flush=True)
    for setting in settings():
        rows, differences, separated = coverage(setting, arguments.boards, arguments.seed)
        limit_ = upper_limit(separated, arguments.boards)
        print(f"{setting.name:60} {rows:.3f}  {differences:.3f}        {separated:.3f} ({limit_:.3f})", flush=True)


if __name__ == "__main__":
    main()
