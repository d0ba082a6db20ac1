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

from dataclasses import dataclass
from functools import lru_cache
from math import isfinite, log, sqrt

import numpy as np

from results.influence import Floats

HIGHEST = 2.25
"""Of log sqrt(g)."""
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
        return self._beyond(abs(gap) / self.error, *self._mixture())

    def half_width(self, alpha: float) -> float:
        """The d with P(|error| > d) = alpha: half the length of a 1 - alpha interval."""
        return self.quantile(alpha) * self.error

    def quantile(self, alpha: float) -> float:
        """`half_width` in standard errors, by Newton's method on log P from a weighted mean of Student's quantiles."""
        if self.seeds == 0 or self.items == 0:
            return student_quantile(self.items_dof if self.seeds == 0 else self.seeds_dof, alpha)
        share = self.seeds / self.variance
        point = share * student_quantile(self.seeds_dof, alpha) + (1 - share) * student_quantile(self.items_dof, alpha)
        scale_G, weight_G, dof_G = self._mixture()
        for _ in range(20):
            beyond = self._beyond(point, scale_G, weight_G, dof_G)
            density = 2 * float(weight_G @ (_student_density(point / scale_G, dof_G) / scale_G))
            step = beyond / density * log(beyond / alpha)
            # P is not convex everywhere: no step goes below a quarter or beyond four times.
            point = min(max(point + step, point / 4), 4 * point)
            if abs(step) <= TOLERANCE * point:
                break
        return point

    def _mixture(self) -> tuple[Floats, Floats, Floats]:
        """Given g, the error in standard errors is `scale` times a Student variable of `dof`; the weights of g."""
        if self.seeds == 0 or self.items == 0:
            return np.ones(1), np.ones(1), np.array([self.items_dof if self.seeds == 0 else self.seeds_dof])
        root_G, weight_G = _nodes(self.seeds_dof)
        ratio_G = self.seeds / (root_G**2 * self.items)
        scale_G = np.sqrt(self.items / self.variance * (1 + ratio_G))
        return scale_G, weight_G, np.minimum(self.items_dof * (1 + ratio_G) ** 2, 1e12)

    @staticmethod
    def _beyond(point: float, scale_G: Floats, weight_G: Floats, dof_G: Floats) -> float:
        from scipy.special import stdtr

        return float(2 * weight_G @ stdtr(dof_G, -point / scale_G))


def _student_density(t_G: Floats, dof_G: Floats) -> Floats:
    from scipy.special import gammaln

    constant_G = gammaln((dof_G + 1) / 2) - gammaln(dof_G / 2) - np.log(np.pi * dof_G) / 2
    density_G: Floats = np.exp(constant_G - (dof_G + 1) / 2 * np.log1p(t_G**2 / dof_G))
    return density_G


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
