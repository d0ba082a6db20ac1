"""The paired bootstrap beside scipy's: rows x items x resamples, percentile limits of every row's mean.

    OMP_NUM_THREADS=1 python tests/bench/bench_bootstrap.py [--rows 40] [--items 10000] [--resamples 10000]

scipy.stats.bootstrap gets the same data as one array (row x item), so that it, too, draws items once for all rows;
vectorised, percentile, without bias correction, at several batch sizes. Each is timed on a tenth of the resamples (its
time is proportional to them), the best one in full. Printed: seconds by the clock and of CPU (which other work on the
machine hardly moves), ratios, peak memory that each adds, and how far the limits are apart: with the same generator
both draw the same items, so that limits agree up to rounding; with another seed they differ by the simulation's error.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from scipy.stats import bootstrap

from results.bootstrap import percentile_limits

BATCHES = (1, 4, 16, 64)


def scores(rows: int, items: int) -> np.ndarray:
    """Correlated negative log-likelihoods (row x item)."""
    rng = np.random.default_rng(0)
    return 3.4 + 0.01 * np.arange(rows)[:, None] + rng.standard_t(5, items) + 0.3 * rng.standard_normal((rows, items))


def ours(x_KN: np.ndarray, resamples: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return percentile_limits(x_KN.T, resamples=resamples, seed=seed)


def scipys(x_KN: np.ndarray, resamples: int, batch: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    found = bootstrap(
        (x_KN,),
        np.mean,
        axis=1,
        vectorized=True,
        method="percentile",
        n_resamples=resamples,
        batch=batch,
        rng=np.random.Generator(np.random.SFC64(seed)),
    ).confidence_interval
    return found.low, found.high


def timed(run: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds by the clock and of CPU, and what was found."""
    start, started = time.perf_counter(), time.process_time()
    found = run()
    return time.perf_counter() - start, time.process_time() - started, found


def peak_mib(run: Callable[[], Any]) -> float:
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rows", 40), ("items", 10_000), ("resamples", 10_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    x_KN, resamples = scores(arguments.rows, arguments.items), arguments.resamples
    tenth = max(1, resamples // 10)
    of_batch = {}
    for batch in BATCHES:
        _, of_batch[batch], _ = timed(lambda size=batch: scipys(x_KN, tenth, size))
        print(f"scipy, batch {batch:3}: {of_batch[batch]:.2f} s of CPU for {tenth} resamples", flush=True)
    best = min(of_batch, key=of_batch.__getitem__)
    turns = [timed(lambda: ours(x_KN, resamples)) for _ in range(3)]
    seconds, of_cpu = (median(turn[place] for turn in turns) for place in (0, 1))
    low, high = turns[0][2]
    theirs, their_cpu, (their_low, their_high) = timed(lambda: scipys(x_KN, resamples, best))
    again_low, again_high = ours(x_KN, resamples, seed=1)
    width = float((high - low).mean())
    print(f"{arguments.rows} rows x {arguments.items} items x {resamples} resamples, scipy with batch {best}")
    for what, mine, other in (("by the clock", seconds, theirs), ("of CPU", of_cpu, their_cpu)):
        print(f"{what}: weighin {mine:.2f} s (median of 3), scipy {other:.2f} s: {other / mine:.1f} times as fast")
    print(
        f"added memory: weighin {peak_mib(lambda: ours(x_KN, tenth)):.0f} MiB, "
        f"scipy {peak_mib(lambda: scipys(x_KN, 2 * best, best)):.0f} MiB (batch {best})"
    )
    same = max(float(np.abs(low - their_low).max()), float(np.abs(high - their_high).max()))
    other = max(float(np.abs(low - again_low).max()), float(np.abs(high - again_high).max()))
    print(f"limits, same draws: apart by {same / width:.1e} of an interval; another seed: {other / width:.1e}")


if __name__ == "__main__":
    main()
