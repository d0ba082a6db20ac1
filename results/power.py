"""What a column can show at all: the smallest difference it can detect, and what two runs of one row differ by.

A difference with standard error e and f degrees of freedom is found significant at level a with probability 1 - b if
it is

    delta e    with    P(T'_f(delta) > q_a) = 1 - b

where T'_f(delta) is Student's noncentral variable and q_a the two-sided critical value (Cohen, *Statistical Power
Analysis*, 2nd ed. 1988, section 2.2; as a property of a design: Bloom, Evaluation Review 19, 1995). q_a is that of the
comparison (`results.spread`), f is Satterthwaite's. It is given of the pair whose standard error is the median one, for
a = 5 % and for 5 % / (number of pairs), which Holm's rule demands of the first.

A/A noise: two seeds of one row are two runs of the same thing, on the same items. With s^2 the variance of the seeds,
pooled over rows, and f its degrees of freedom, 95 % of such pairs differ by less than t_{0.975, f} sqrt(2) s.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt

import numpy as np

from results.spread import Spread, student_quantile
from results.statistics import SIGNIFICANCE

POWER = 0.8


@dataclass(frozen=True)
class Detectable:
    """The differences that a column can tell from none, on the comparison scale (of perplexities: ln of the ratio)."""

    single: float | None
    """Of two rows that were chosen beforehand, with 80 % power at 5 %; None where no pair can be tested."""
    corrected: float | None
    """The same after Holm's correction over all pairs of the column."""
    pairs: int
    """That were tested."""
    noise: float | None
    """What two seeds of one row differ by, at most in 95 % of pairs; None where no row has two that differ."""


def detectable(spreads: Sequence[Spread], pairs: int, seeds: Iterable[Sequence[float]]) -> Detectable | None:
    """Of one column: the spreads of its tested pairs, how many those are, and each row's values by seed."""
    single = corrected = None
    if spreads:
        median = sorted(spreads, key=lambda spread: spread.variance)[(len(spreads) - 1) // 2]
        single, corrected = (smallest_difference(median, SIGNIFICANCE / m) for m in (1, pairs))
    noise = seed_noise(seeds)
    return Detectable(single, corrected, pairs, noise) if (single, noise) != (None, None) else None


def smallest_difference(spread: Spread, alpha: float, power: float = POWER) -> float:
    """The difference that is significant at `alpha`, two-sided, with probability `power`."""
    from scipy.special import nctdtrinc

    return float(nctdtrinc(spread.dof, 1 - power, spread.quantile(alpha))) * spread.error


def seed_noise(seeds: Iterable[Sequence[float]]) -> float | None:
    """t_{0.975, f} sqrt(2) s above, over the rows whose seeds differ: a method that draws nothing has no noise."""
    values = [np.asarray(each) for each in seeds if len(each) > 1 and all(map(isfinite, each))]
    moving = [each_S for each_S in values if np.ptp(each_S) > 0]
    dof = sum(len(each_S) - 1 for each_S in moving)
    if not dof:
        return None
    pooled = sum(float(each_S.var(ddof=1)) * (len(each_S) - 1) for each_S in moving) / dof
    return student_quantile(dof, SIGNIFICANCE) * sqrt(2 * pooled)
