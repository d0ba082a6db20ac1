"""The variance of a mean over neighbouring windows of a text, which are not independent.

The circular block bootstrap (Politis & Romano, in *Exploring the Limits of Bootstrap*, 1992; Kuensch, Ann. Stat. 17,
1989, without the circle) draws blocks of l neighbouring items. The variance that it gives a mean has a closed form, so
that nothing is drawn: with influence values d_1..d_N that sum to zero, in the order of the text, the last beside the
first, and B_j = d_j + ... + d_{j+l-1} the sum of the block that begins at j,

    B(d) = sum_j B_j^2 / (l N (N - l))

which for l = 1 is sum_i d_i^2 / (N (N - 1)), and has no bias where items are independent. Its degrees of freedom are
3 l N / (2 l^2 + 1) - 1, those of the Bartlett window that it is (Priestley, *Spectral Analysis and Time Series*, 1981,
section 6.2), and N - 1 for l = 1. The length that has the least mean squared error is, with autocovariances R(k) and
flat-top weights w(k),

    b = (2 G^2 / D)^(1/3) N^(1/3),   G = sum_k w(k) |k| R(k),   D = 4/3 (sum_k w(k) R(k))^2

(Politis & White, Econometric Reviews 23, 2004; corrected by Patton, Politis & White, Econometric Reviews 28, 2009). It
leaves a bias downwards, and intervals want longer blocks (Sun, Phillips & Jin, Econometrica 76, 2008): l is twice b,
or 1 where b is.
"""

from __future__ import annotations

import re
from math import ceil, log10, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from results.influence import Floats

WINDOW = re.compile(r"(\d+):(\d+)")
"""An item that is a stretch of a text: its first token and its end."""


def places(items: NDArray[Any]) -> NDArray[np.int64] | None:
    """Where each window begins in its text; None where items are documents or examples, which are independent."""
    found = [WINDOW.fullmatch(item) if isinstance(item, str) else None for item in items[:1]]
    if not all(found):
        return None
    found = [WINDOW.fullmatch(str(item)) for item in items]
    return np.array([int(each[1]) for each in found if each]) if all(found) else None


def block_variance(influence_N: Floats, length: int) -> float:
    """B(d) above; rows of a matrix are added up."""
    num_items = influence_N.shape[-1]
    rows_SN = np.atleast_2d(influence_N)
    block_SN = rows_SN
    if length > 1:
        before_SN = np.cumsum(np.concatenate([rows_SN, rows_SN[:, :length]], axis=1), axis=1)
        block_SN = before_SN[:, length:] - before_SN[:, :num_items]
    return float((block_SN**2).sum() / (length * num_items * (num_items - length)))


def block_dof(num_items: int, length: int) -> float:
    """Degrees of freedom of B(d)."""
    return max(1.0, 3 * length * num_items / (2 * length**2 + 1) - 1)


def block_length(influence_N: Floats) -> int:
    """l above: 1 where b rounds up to 1 and for fewer than 8 items, never more than N / 4."""
    num_items = len(influence_N)
    if num_items < 8 or not influence_N.any():
        return 1
    quiet = max(5, ceil(sqrt(log10(num_items))))
    most = min(ceil(sqrt(num_items)) + quiet, num_items - 1)
    covariance_K = np.array([influence_N[: num_items - k] @ influence_N[k:] / num_items for k in range(most + 1)])
    # The first lag after which `quiet` correlations in a row are none.
    loud_K = np.abs(covariance_K[1:] / covariance_K[0]) >= 2 * sqrt(log10(num_items) / num_items)
    lags = next((k for k in range(len(loud_K)) if not loud_K[k : k + quiet].any()), len(loud_K))
    width = min(2 * max(lags, 1), most)
    lag_K = np.arange(1, width + 1)
    weight_K = np.minimum(1.0, 2 * (1 - lag_K / width))
    g = 2 * float((weight_K * lag_K) @ covariance_K[1 : width + 1])
    d = 4 / 3 * (covariance_K[0] + 2 * float(weight_K @ covariance_K[1 : width + 1])) ** 2
    best = (2 * g**2 / d) ** (1 / 3) * num_items ** (1 / 3) if d > 0 else 1.0
    return max(1, min(2 * ceil(best), num_items // 4)) if best > 1 else 1
