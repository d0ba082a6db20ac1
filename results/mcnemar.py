"""Two models of one seed each on the same right-or-wrong items: McNemar's test, exact.

Only the items on which one is right and the other wrong say which is better: b on which the first alone is right, c on
which the second alone is. Were both equally good, b would be binomial with b + c draws and probability 1/2 (McNemar,
Psychometrika 12, 1947; exact: Edwards, Psychometrika 13, 1948):

    p = min(1, 2 P(X <= min(b, c))),    X ~ Binomial(b + c, 1/2)

The interval of the difference is that of Clopper & Pearson (Biometrika 26, 1934) for theta = b / (b + c), turned into
(2 theta - 1) (b + c) / N: it holds 0 exactly where p is 5 % or more.
"""

from __future__ import annotations

import numpy as np

from results.influence import Floats


def discordant(right_a_N: Floats, right_b_N: Floats) -> tuple[int, int]:
    """(b, c) above."""
    difference_N = np.rint(right_a_N) - np.rint(right_b_N)
    return int((difference_N > 0).sum()), int((difference_N < 0).sum())


def p_value(first: int, second: int) -> float:
    """The exact two-sided p-value; 1 where there is nothing to tell them apart."""
    from scipy.special import bdtr

    total = first + second
    return min(1.0, 2 * float(bdtr(min(first, second), total, 0.5))) if total else 1.0


def limits(first: int, second: int, num_items: int, alpha: float) -> tuple[float, float]:
    """The interval of the difference in accuracy, given the number of items that tell the two apart."""
    from scipy.special import betaincinv

    total = first + second
    if not total:
        return 0.0, 0.0
    low = float(betaincinv(first, second + 1, alpha / 2)) if first else 0.0
    high = float(betaincinv(first + 1, second, 1 - alpha / 2)) if second else 1.0
    return (2 * low - 1) * total / num_items, (2 * high - 1) * total / num_items
