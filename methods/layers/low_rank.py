"""A product of two thin matrices."""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.layers.factorised import Factorised, Spec, cheapest, frontier, product_cost


class Way(NamedTuple):
    """Both factors in turn, or their product first."""

    dense: bool
    rebuilding: int
    """Cost of L R, in multiply-adds."""
    per_token: int
    """Cost of one token, in multiply-adds."""


class LowRankLinear(Factorised, kind="low_rank"):
    """y = L (R x) + b, W = L R with L (out x r) and R (r x in); r (out + in) parameters and multiply-adds.

    Where the rank saves nothing and tokens are many, L R is built for this forward pass.

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
        if cheapest(self._ways, x.numel() // self.in_features).dense:
            return F.linear(x, self.materialise(), self.bias)
        return F.linear(F.linear(x, self.right), self.left, self.bias)

    def materialise(self) -> Tensor:
        return self.left @ self.right


def every_way(out_features: int, in_features: int, rank: int) -> tuple[Way, Way]:
    """The two ways."""
    thin = product_cost(1, rank, in_features) + product_cost(1, out_features, rank)
    return (
        Way(False, 0, thin),
        Way(True, product_cost(out_features, in_features, rank), product_cost(1, out_features, in_features)),
    )
