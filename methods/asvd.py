"""Singular value decomposition weighted column by column by the size of the inputs (ASVD)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Literal

from methods.interface import MethodError, Statistic
from methods.low_rank import LowRank

if TYPE_CHECKING:
    from torch import Tensor

OFFSET = 1e-6
"""Added to every scale, as the paper does, so that an input that is always zero keeps diag(s) invertible."""


@dataclass(frozen=True, kw_only=True)
class Asvd(LowRank):
    """ASVD: input channels with large activations are kept more exactly.  Yuan et al., arXiv 2312.05821.

    s_j = (mean |x_j|)^alpha + 1e-6 per input channel j of W (out x in). The truncated SVD W diag(s) ~ U S V^T gives
    L = U sqrt(S) and R = sqrt(S) V^T diag(s)^-1, which minimise ||(W - L R) diag(s)||_F; s is taken relative to its
    largest entry, which leaves the product as it is.

    Deviations: the paper sums mean |x_j| over the calibration set where this is the mean, a common factor that only
    the 1e-6 sees; its search of ranks by each layer's sensitivity (the perplexity with that layer truncated) is not
    done, the ranks are uniform.
    """

    alpha: float = 0.5
    """Exponent of the scale; 0 is plain SVD."""
    scaling: Literal["abs_mean", "fisher"] = "abs_mean"
    """`fisher` takes sqrt(mean over the rows of E[(dL/dW)^2]) per column in the place of mean |x_j|."""

    def __post_init__(self) -> None:
        if not (isfinite(self.alpha) and self.alpha >= 0):
            raise MethodError(f"alpha: {self.alpha:g} is no exponent of a scale; the nearest valid value is 0")

    @property
    def needs(self) -> frozenset[Statistic]:
        return frozenset({"abs_mean"} if self.scaling == "abs_mean" else {"fisher_columns"})

    def factors(self, weight: Tensor, rank: int, measured: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        from methods.weighted_svd import scaled_svd

        return scaled_svd(weight, rank, columns=self.scales(measured))

    def scales(self, measured: Mapping[str, Tensor]) -> Tensor:
        """s (in)."""
        sizes = measured["abs_mean"] if self.scaling == "abs_mean" else measured["fisher_columns"].sqrt()
        return sizes**self.alpha + OFFSET
