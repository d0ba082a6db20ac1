"""The distribution of a mean's error, against the sum of Student variables that it is."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from results.spread import Spread

t = scipy.stats.t


def beyond(d: float, seeds: float, items: float, seeds_dof: float, items_dof: float) -> float:
    """P(|sqrt(V_S) T + sqrt(U) T'| > d), by the convolution."""

    def integrand(x: float) -> float:
        rest = (np.array([d, -d]) - np.sqrt(seeds) * x) / np.sqrt(items)
        return float(t.pdf(x, seeds_dof) * (t.sf(rest[0], items_dof) + t.cdf(rest[1], items_dof)))

    edge = d / np.sqrt(seeds)
    return float(
        scipy.integrate.quad(integrand, -np.inf, -edge)[0] * 2 + scipy.integrate.quad(integrand, -edge, edge)[0]
    )


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("seeds_dof", [1, 2, 4])
def test_p_values_are_those_of_the_sum(share: float, seeds_dof: int) -> None:
    spread = Spread("seeds and items", 4 * share, 4 * (1 - share), seeds_dof, 500)
    for d in (3.0, 12.0):
        assert spread.p_value(-d) == pytest.approx(beyond(d, 4 * share, 4 * (1 - share), seeds_dof, 500), rel=2e-3)


def test_few_items_are_close_to_the_sum() -> None:
    spread = Spread("seeds and items", 0.5, 0.5, 4, 15)
    assert spread.p_value(2.5) == pytest.approx(beyond(2.5, 0.5, 0.5, 4, 15), rel=0.1)


@pytest.mark.parametrize("alpha", [0.4, 0.05, 1e-3, 1e-6])
@pytest.mark.parametrize("seeds_dof", [1, 2, 9])
def test_quantiles_invert_p_values(alpha: float, seeds_dof: int) -> None:
    spread = Spread("seeds and items", 0.3, 1.2, seeds_dof, 40)
    assert spread.p_value(spread.half_width(alpha)) == pytest.approx(alpha, rel=1e-5)


def test_one_part_alone_is_students() -> None:
    for spread, dof in (
        (Spread("seeds only", seeds=4.0, seeds_dof=2), 2),
        (Spread("items only", items=4.0, items_dof=30), 30),
    ):
        assert spread.p_value(5) == pytest.approx(2 * t.sf(2.5, dof))
        assert spread.half_width(0.05) == pytest.approx(2 * t.ppf(0.975, dof))
        assert spread.dof == pytest.approx(dof)
    almost = Spread("seeds and items", 4.0, 1e-9, 2, 30)
    assert almost.half_width(0.05) == pytest.approx(2 * t.ppf(0.975, 2), rel=1e-4)


def test_degrees_of_freedom_are_satterthwaites() -> None:
    assert Spread("seeds and items", 1.0, 3.0, 4, 99).dof == pytest.approx(16 / (1 / 4 + 9 / 99))
