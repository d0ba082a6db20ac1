"""Truncated singular value decomposition of the blocks' matrices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from methods.low_rank import LowRank

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Svd(LowRank):
    """Truncated SVD: W (out x in) ~ L R with L (out x r) and R (r x in).  Eckart & Young, 1936.

    The singular values are split evenly, L = U sqrt(S) and R = sqrt(S) V^T.
    """

    def factors(self, weight: Tensor, rank: int, measured: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        from methods.truncated_svd import truncated_svd

        return truncated_svd(weight, rank)
