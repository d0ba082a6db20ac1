"""How far a mean over seeds and items may be from the truth: the distribution behind intervals and p-values.

A mean's error has two independent parts: V_S, which its seeds show, with S - 1 degrees of freedom, and U, which items
bring beyond that, with many. The error divided by what is known of it is distributed as

    sqrt(V_S) T_{S-1} + sqrt(U) T_f

with independent Student variables (Behrens, 1929; Fisher, Ann. Eugenics 6, 1935), whose coverage is at or above the
nominal one also far out in the tails, where corrections over many pairs look (Robinson, Ann. Stat. 4, 1976). One
Student variable with Satterthwaite's degrees of freedom covers too little there: V_S of few seeds is often far too
small by chance, and then looks as if it had many degrees of freedom. With g ~ chi^2_{S-1} / (S - 1),

    P(|error| > d) = E_g P(|T_f(g)| > d / sqrt(U + V_S / g)),    f(g) = f (1 + V_S / (g U))^2

which is Student's t with S - 1 where U = 0, and with f where V_S = 0; f(g) are Satterthwaite's degrees of freedom once
g is given, which matters for few items only. The expectation is a trapezoid sum over log sqrt(g), whose error falls
exponentially with the step (Trefethen & Weideman, SIAM Review 56, 2014).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite, sqrt

import numpy as np
from numpy.typing import NDArray

from results.influence import Floats

HIGHEST = 2.25
"""Of log sqrt(g)."""
MANY = 100
"""From these degrees of freedom on, Student's variable is turned into a normal one (Wallace, Ann. Math. Stat. 30,
1959): at 5 % that is right to 1e-5, and ten times as fast."""
CHUNK = 2**13
"""Means whose sums are formed at once."""
TOLERANCE = 1e-3
"""Of Newton's last step, relative: what it leaves is of the order of its square."""


@dataclass(frozen=True)
class Spread:
    """The variance of a mean or of a difference in its two parts; `basis` is as in `Summary`."""

    basis: str
    seeds: float = 0.0
    """V_S above."""
    items: float = 0.0
    """U above."""
    seeds_dof: float = 0.0
    items_dof: float = 0.0
    known: bool = True
    """False where nothing gives a variance."""

    @property
    def variance(self) -> float:
        return self.seeds + self.items

    @property
    def error(self) -> float:
        """The standard error."""
        return sqrt(self.variance)

    @property
    def dof(self) -> float:
        """Satterthwaite's degrees of freedom (Biometrics Bulletin 2, 1946): for a report, not for the interval."""
        parts = [
            part**2 / dof for part, dof in ((self.seeds, self.seeds_dof), (self.items, self.items_dof)) if part > 0
        ]
        return self.variance**2 / sum(parts) if parts else max(self.seeds_dof, self.items_dof)

    def p_value(self, gap: float) -> float:
        """P(|error| > |gap|), two-sided."""
        return float(p_values(np.array([gap]), *self._parts)[0])

    def half_width(self, alpha: float) -> float:
        """The d with P(|error| > d) = alpha: half the length of a 1 - alpha interval."""
        return self.quantile(alpha) * self.error

    def quantile(self, alpha: float) -> float:
        """`half_width` in standard errors."""
        return float(quantiles(alpha, *self._parts)[0])

    @property
    def _parts(self) -> tuple[Floats, Floats, float, float]:
        return np.array([self.seeds]), np.array([self.items]), self.seeds_dof, self.items_dof


def p_values(gap_P: Floats, seeds_P: Floats, items_P: Floats, seeds_dof: float, items_dof: float) -> Floats:
    """`Spread.p_value` of many gaps, with variances of their own that are not 0, and common degrees of freedom."""
    from scipy.special import stdtr

    point_P = np.abs(gap_P) / np.sqrt(seeds_P + items_P)
    found_P: Floats = 2 * stdtr(np.where(items_P == 0, seeds_dof, items_dof), -point_P)
    for part in _mixed(seeds_P, items_P):
        mixture = _mixture(seeds_P[part], items_P[part], seeds_dof, items_dof)
        found_P[part] = _beyond(point_P[part], *mixture)[0]
    return found_P


def quantiles(alpha: float, seeds_P: Floats, items_P: Floats, seeds_dof: float, items_dof: float) -> Floats:
    """`Spread.quantile` of many, by Newton's method on log P from a weighted mean of Student's quantiles."""
    of_seeds, of_items = (student_quantile(dof, alpha) if dof > 0 else 0.0 for dof in (seeds_dof, items_dof))
    point_P: Floats = np.where(items_P == 0, of_seeds, of_items)
    for part in _mixed(seeds_P, items_P):
        share_P = seeds_P[part] / (seeds_P[part] + items_P[part])
        at_P = share_P * of_seeds + (1 - share_P) * of_items
        mixture = _mixture(seeds_P[part], items_P[part], seeds_dof, items_dof)
        for _ in range(20):
            beyond_P, density_P = _beyond(at_P, *mixture)
            step_P = beyond_P / density_P * np.log(beyond_P / alpha)
            # P is not convex everywhere: no step goes below a quarter or beyond four times.
            at_P = np.clip(at_P + step_P, at_P / 4, 4 * at_P)
            if (np.abs(step_P) <= TOLERANCE * at_P).all():
                break
        point_P[part] = at_P
    return point_P


def _mixed(seeds_P: Floats, items_P: Floats) -> Iterator[NDArray[np.int64]]:
    """Those of both parts, a bounded number at a time."""
    both = np.flatnonzero((seeds_P > 0) & (items_P > 0))
    yield from (both[first : first + CHUNK] for first in range(0, len(both), CHUNK))


def _mixture(
    seeds_P: Floats, items_P: Floats, seeds_dof: float, items_dof: float
) -> tuple[Floats, Floats, Floats, bool]:
    """Given g, the error in standard errors is `scale` times a Student variable of `dof`; the weights of g."""
    root_G, weight_G = _nodes(seeds_dof)
    ratio_PG = (seeds_P / items_P)[:, None] / root_G**2
    scale_PG = np.sqrt((items_P / (seeds_P + items_P))[:, None] * (1 + ratio_PG))
    return scale_PG, np.minimum(items_dof * (1 + ratio_PG) ** 2, 1e12), weight_G, items_dof >= MANY


def _beyond(point_P: Floats, scale_PG: Floats, dof_PG: Floats, weight_G: Floats, many: bool) -> tuple[Floats, Floats]:
    """P(|error| > point) in standard errors, and minus its derivative."""
    from scipy.special import gammaln, ndtr, stdtr

    t_PG = point_P[:, None] / scale_PG
    if many:
        factor_PG = (8 * dof_PG + 1) / (8 * dof_PG + 3)
        z_PG = factor_PG * np.sqrt(dof_PG * np.log1p(t_PG**2 / dof_PG))
        tail_PG = ndtr(-z_PG)
        # dz / dt
        slope_PG = factor_PG**2 * np.divide(t_PG, z_PG, out=np.ones_like(t_PG), where=z_PG > 0) / (1 + t_PG**2 / dof_PG)
        density_PG = np.exp(-(z_PG**2) / 2) / np.sqrt(2 * np.pi) * slope_PG
    else:
        tail_PG = stdtr(dof_PG, -t_PG)
        constant_PG = gammaln((dof_PG + 1) / 2) - gammaln(dof_PG / 2) - np.log(np.pi * dof_PG) / 2
        density_PG = np.exp(constant_PG - (dof_PG + 1) / 2 * np.log1p(t_PG**2 / dof_PG))
    return 2 * tail_PG @ weight_G, 2 * (density_PG / scale_PG) @ weight_G


@lru_cache(maxsize=256)
def _nodes(dof: float) -> tuple[Floats, Floats]:
    """sqrt(g) and its weights, for g ~ chi^2_dof / dof."""
    from scipy.special import gammaln

    # Below the first, a mass of 1e-12; the more seeds, the narrower the density: the sum is right to 1e-8.
    log_G = np.arange(-1 - 28 / dof, HIGHEST, 0.5 / np.sqrt(dof + 3))
    root_G = np.exp(log_G)
    log_density = dof * log_G - dof * root_G**2 / 2 + np.log(2) + dof / 2 * np.log(dof / 2) - gammaln(dof / 2)
    weight_G = np.exp(log_density)
    return root_G, weight_G / weight_G.sum()


@lru_cache(maxsize=4096)
def student_quantile(dof: float, alpha: float) -> float:
    """Two-sided quantile of Student's t."""
    from scipy.special import ndtri, stdtrit

    return float(stdtrit(dof, 1 - alpha / 2) if isfinite(dof) else ndtri(1 - alpha / 2))
