"""A product of two thin matrices."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.layers.factorised import Factorised, Spec


class LowRankLinear(Factorised, kind="low_rank"):
    """y = L (R x) + b, W = L R with L (out x r) and R (r x in); r (out + in) parameters and multiply-adds.

    Specification: `{"type": "low_rank", "rank": r}`.
    """

    def __init__(self, out_features: int, in_features: int, rank: int, *, bias: bool) -> None:
        super().__init__(out_features, in_features, bias=bias)
        self.left = nn.Parameter(torch.zeros(out_features, rank))
        self.right = nn.Parameter(torch.zeros(rank, in_features))

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
        return F.linear(F.linear(x, self.right), self.left, self.bias)

    def materialise(self) -> Tensor:
        return self.left @ self.right
