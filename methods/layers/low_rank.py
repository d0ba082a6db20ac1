"""A product of two thin matrices."""

from __future__ import annotations

from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.layers.factorised import Factorised, Spec, cheapest, frontier, move_cost, product_cost

_ALIGNED = 4
"""Products run at full speed when the rank is a multiple of this."""
_UNALIGNED = 1.2
"""What they cost otherwise, as a multiple; at rank 307 of 768 x 768 an aligned product is as much faster."""


class Way(NamedTuple):
    """Both factors in turn, as they are or with the rank padded by zeros, or their product first."""

    order: Literal["thin", "padded", "dense"]
    rebuilding: int
    """Cost of padding the factors or of building L R, in multiply-adds."""
    per_token: int
    """Cost of one token, in multiply-adds."""


class LowRankLinear(Factorised, kind="low_rank"):
    """y = L (R x) + b, W = L R with L (out x r) and R (r x in); r (out + in) parameters and multiply-adds.

    Where tokens are many, a rank that is no multiple of 4 is padded with zeros for this forward pass, since products
    are faster then; and where the rank saves nothing, L R is built.

    Specification: `{"type": "low_rank", "rank": r}`.
    """

    def __init__(self, out_features: int, in_features: int, rank: int, *, bias: bool) -> None:
        super().__init__(out_features, in_features, bias=bias)
        self.left = nn.Parameter(torch.zeros(out_features, rank))
        self.right = nn.Parameter(torch.zeros(rank, in_features))
        self._ways = frontier(every_way(out_features, in_features, rank))

    @classmethod
    def from_spec(cls, spec: Spec, out_features: int, in_features: int, *, bias: bool) -> Self:
        return cls(out_features, in_features, spec["rank"], bias=bias)

    @classmethod
    def count(cls, spec: Spec, out_features: int, in_features: int) -> int:
        rank: int = spec["rank"]
        return rank * (out_features + in_features)

    @property
    def macs_per_token(self) -> int:
        return self.left.numel() + self.right.numel()

    def forward(self, x: Tensor) -> Tensor:
        order = cheapest(self._ways, x.numel() // self.in_features).order
        if order == "dense":
            return F.linear(x, self.materialise(), self.bias)
        left: Tensor = self.left
        right: Tensor = self.right
        if order == "padded":
            missing = -left.shape[1] % _ALIGNED
            left, right = F.pad(left, (0, missing)), F.pad(right, (0, 0, 0, missing))
        return F.linear(F.linear(x, right), left, self.bias)

    def materialise(self) -> Tensor:
        return self.left @ self.right


def every_way(out_features: int, in_features: int, rank: int) -> tuple[Way, ...]:
    """The ways that there are at this rank."""

    def both(rank: int) -> int:
        return product_cost(1, rank, in_features) + product_cost(1, out_features, rank)

    aligned = rank + -rank % _ALIGNED
    thin = both(rank) if rank == aligned else round(_UNALIGNED * both(rank))
    dense = product_cost(out_features, in_features, rank), product_cost(1, out_features, in_features)
    return (
        Way("thin", 0, thin),
        Way("padded", move_cost(aligned * (out_features + in_features)), both(aligned)),
        Way("dense", *dense),
    )
