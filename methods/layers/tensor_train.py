"""Tensor-train matrices as a linear layer.

Shapes: W (out x in), out = m_1 ... m_N, in = n_1 ... n_N, core G_k (r_{k-1} x m_k x n_k x r_k), r_0 = r_N = 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.layers.factorised import Factorised, Spec


class TensorTrainLinear(Factorised, kind="tensor_train"):
    """W[(i1..iN),(j1..jN)] = G_1[i1,j1] ... G_N[iN,jN]; sum of r_{k-1} m_k n_k r_k parameters.  Oseledets, 2011.

    Applied core by core where that takes fewer multiply-adds per token than the dense product, else through the dense
    weight, rebuilt once per forward pass (large ranks); the rebuilding is not counted in `macs_per_token`.

    Specification: `{"type": "tensor_train", "out_modes": [m..], "in_modes": [n..], "ranks": [1, .., 1]}`.
    """

    def __init__(self, out_modes: Sequence[int], in_modes: Sequence[int], ranks: Sequence[int], *, bias: bool) -> None:
        super().__init__(prod(out_modes), prod(in_modes), bias=bias)
        shapes = zip(ranks[:-1], out_modes, in_modes, ranks[1:], strict=True)
        for k, shape in enumerate(shapes):
            self.register_parameter(f"core_{k}", nn.Parameter(torch.zeros(shape)))
        self._length = len(out_modes)
        self._core_by_core = core_macs(out_modes, in_modes, ranks) < self.out_features * self.in_features

    @property
    def cores(self) -> list[Tensor]:
        """G_1 .. G_N, held as `core_0` .. so that ZeRO-3 gathers them with this module."""
        return [getattr(self, f"core_{k}") for k in range(self._length)]

    @classmethod
    def from_spec(cls, spec: Spec, out_features: int, in_features: int, *, bias: bool) -> Self:
        layer = cls(spec["out_modes"], spec["in_modes"], spec["ranks"], bias=bias)
        assert (layer.out_features, layer.in_features) == (out_features, in_features), "modes do not fit the layer"
        return layer

    @classmethod
    def count(cls, spec: Spec, out_features: int, in_features: int) -> int:
        return core_params(spec["out_modes"], spec["in_modes"], spec["ranks"])

    @property
    def macs_per_token(self) -> int:
        if not self._core_by_core:
            return self.out_features * self.in_features
        shapes = [core.shape for core in self.cores]
        return core_macs([s[1] for s in shapes], [s[2] for s in shapes], [1, *(s[3] for s in shapes)])

    def forward(self, x: Tensor) -> Tensor:
        if not self._core_by_core:
            return F.linear(x, self.materialise(), self.bias)
        rest_BRY = x.reshape(-1, 1, self.in_features)  # B: tokens times finished output modes, Y: remaining input modes
        for core in self.cores:
            rank, m, n, next_rank = core.shape
            rest_BYK = rest_BRY.reshape(rest_BRY.shape[0], rank * n, -1).transpose(1, 2)
            mixed_BYS = rest_BYK @ core.permute(0, 2, 1, 3).reshape(rank * n, m * next_rank)
            mixed_BYMR = mixed_BYS.reshape(*mixed_BYS.shape[:2], m, next_rank)
            rest_BRY = mixed_BYMR.permute(0, 2, 3, 1).flatten(0, 1)
        y = rest_BRY.reshape(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias

    def materialise(self) -> Tensor:
        weight_OIR = self.cores[0][0]
        for core in self.cores[1:]:
            product = torch.tensordot(weight_OIR, core, dims=1)  # O I m n R
            weight_OIR = product.transpose(1, 2).flatten(2, 3).flatten(0, 1)
        return weight_OIR[..., 0]


def core_params(out_modes: Sequence[int], in_modes: Sequence[int], ranks: Sequence[int]) -> int:
    """Sum of r_{k-1} m_k n_k r_k."""
    return sum(a * m * n * b for a, m, n, b in zip(ranks[:-1], out_modes, in_modes, ranks[1:], strict=True))


def core_macs(out_modes: Sequence[int], in_modes: Sequence[int], ranks: Sequence[int]) -> int:
    """Multiply-adds per token, core by core: finished output modes x core entries x remaining input modes."""
    return sum(
        prod(out_modes[:k]) * ranks[k] * out_modes[k] * in_modes[k] * ranks[k + 1] * prod(in_modes[k + 1 :])
        for k in range(len(out_modes))
    )
