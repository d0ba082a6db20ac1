"""Singular value decomposition weighted row by row by the Fisher information (FWSVD)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from methods.interface import Statistic
from methods.low_rank import LowRank

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Fwsvd(LowRank):
    """FWSVD: rows that the loss is sensitive to are kept more exactly.  Hsu et al., arXiv 2207.00112.

    I = E[(dL/dW)^2] is the empirical Fisher information of the entries of W (out x in), D = diag(sqrt(row sums of I)).
    The truncated SVD D W ~ U S V^T gives L = D^-1 U S and R = V^T, which minimise ||D (W - L R)||_F.

    The formula is known second-hand. Deviations: the expectation is over sequences of calibration text with the
    language model's loss, where the paper compresses models for a task; a weight in D is at least 1e-6 of the largest,
    for rows that no gradient reaches; the ranks are uniform; the fine-tuning after it is left to the sweep's recipe.
    """

    @property
    def needs(self) -> frozenset[Statistic]:
        return frozenset({"fisher_rows"})

    def factors(self, weight: Tensor, rank: int, measured: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        import torch

        from methods.weighted_svd import scaled_svd

        left_OR, right_RI = scaled_svd(weight, rank, rows=measured["fisher_rows"].sqrt())
        norms = torch.linalg.vector_norm(right_RI, dim=1).clamp_min(torch.finfo(torch.float64).tiny)
        return left_OR * norms, right_RI / norms[:, None]
