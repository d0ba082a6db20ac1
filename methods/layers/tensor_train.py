"""Tensor-train matrices as a linear layer.

Shapes: out <= m_1 ... m_N, in <= n_1 ... n_N, core G_k (r_{k-1} x m_k x n_k x r_k), r_0 = r_N = 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import prod
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.layers.factorised import Factorised, Spec


class TensorTrainLinear(Factorised, kind="tensor_train"):
    """W[(i1..iN),(j1..jN)] = G_1[i1,j1] ... G_N[iN,jN]; sum of r_{k-1} m_k n_k r_k parameters.  Oseledets, 2011.

    Modes may multiply to more than the layer has: the input is then padded with zeros and the output cut (2306.02697).
    Applied core by core, in the order with the fewest multiply-adds, where that takes fewer of them per token than the
    dense product, else through the dense weight, rebuilt once per forward pass (large ranks); the rebuilding is not
    counted in `macs_per_token`.

    Specification: `{"type": "tensor_train", "out_modes": [m..], "in_modes": [n..], "ranks": [1, .., 1]}`.
    """

    def __init__(
        self,
        out_features: int,
        in_features: int,
        out_modes: Sequence[int],
        in_modes: Sequence[int],
        ranks: Sequence[int],
        *,
        bias: bool,
    ) -> None:
        super().__init__(out_features, in_features, bias=bias)
        assert prod(out_modes) >= out_features, f"{list(out_modes)} are fewer than {out_features} rows"
        assert prod(in_modes) >= in_features, f"{list(in_modes)} are fewer than {in_features} columns"
        shapes = zip(ranks[:-1], out_modes, in_modes, ranks[1:], strict=True)
        for k, shape in enumerate(shapes):
            self.register_parameter(f"core_{k}", nn.Parameter(torch.zeros(shape)))
        self._modes = (tuple(out_modes), tuple(in_modes), tuple(ranks))
        self._core_by_core = core_macs(*self._modes) < out_features * in_features

    @property
    def cores(self) -> list[Tensor]:
        """G_1 .. G_N, held as `core_0` .. so that ZeRO-3 gathers them with this module."""
        return [getattr(self, f"core_{k}") for k in range(len(self._modes[0]))]

    @classmethod
    def from_spec(cls, spec: Spec, out_features: int, in_features: int, *, bias: bool) -> Self:
        return cls(out_features, in_features, spec["out_modes"], spec["in_modes"], spec["ranks"], bias=bias)

    @classmethod
    def count(cls, spec: Spec, out_features: int, in_features: int) -> int:
        return core_params(spec["out_modes"], spec["in_modes"], spec["ranks"])

    @property
    def macs_per_token(self) -> int:
        return core_macs(*self._modes) if self._core_by_core else self.out_features * self.in_features

    def forward(self, x: Tensor) -> Tensor:
        if not self._core_by_core:
            return F.linear(x, self.materialise(), self.bias)
        padded = F.pad(x, (0, prod(self._modes[1]) - self.in_features))
        y = _apply(padded.reshape(-1, padded.shape[-1]), self.cores)[:, : self.out_features]
        y = y.reshape(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias

    def materialise(self) -> Tensor:
        weight_OIR = self.cores[0][0]
        for core in self.cores[1:]:
            product = torch.tensordot(weight_OIR, core, dims=1)  # O I m n R
            weight_OIR = product.transpose(1, 2).flatten(2, 3).flatten(0, 1)
        return weight_OIR[: self.out_features, : self.in_features, 0]


def core_params(out_modes: Sequence[int], in_modes: Sequence[int], ranks: Sequence[int]) -> int:
    """Sum of r_{k-1} m_k n_k r_k."""
    return sum(a * m * n * b for a, m, n, b in zip(ranks[:-1], out_modes, in_modes, ranks[1:], strict=True))


def core_macs(out_modes: Sequence[int], in_modes: Sequence[int], ranks: Sequence[int]) -> int:
    """Multiply-adds per token, core by core in the best order."""
    return best_order(tuple(out_modes), tuple(in_modes), tuple(ranks))[0]


@cache
def best_order(
    out_modes: tuple[int, ...], in_modes: tuple[int, ...], ranks: tuple[int, ...]
) -> tuple[int, tuple[int, ...]]:
    """The fewest multiply-adds per token, and the order of the cores (from 0) that takes them.

    Applying core k to a token of which the cores in a set D are applied costs the entries that the token has by then,
    times m_k, times the bonds that k opens: those with neighbours that are not in D. Minimised over all orders by
    dynamic programming over D.
    """
    length = len(out_modes)
    best: dict[int, tuple[int, tuple[int, ...]]] = {0: (0, ())}
    for done in range(1, 2**length):
        options = []
        for k in (k for k in range(length) if done >> k & 1):
            macs, order = best[done ^ 1 << k]
            options.append((macs + _step_macs(out_modes, in_modes, ranks, done ^ 1 << k, k), (*order, k)))
        best[done] = min(options)
    return best[2**length - 1]


def _step_macs(out_modes: Sequence[int], in_modes: Sequence[int], ranks: Sequence[int], done: int, core: int) -> int:
    held = 1
    for k, (m, n) in enumerate(zip(out_modes, in_modes, strict=True)):
        held *= m if done >> k & 1 else n
        if k and (done >> k & 1) != (done >> k - 1 & 1):
            held *= ranks[k]
    for k, neighbour in ((core, core - 1), (core + 1, core + 1)):
        if 0 <= neighbour < len(out_modes) and not done >> neighbour & 1:
            held *= ranks[k]
    return held * out_modes[core]


def _apply(x_TJ: Tensor, cores: Sequence[Tensor]) -> Tensor:
    """y (T x m_1 .. m_N), core by core.

    The token is held in the order of the train, each core's input mode before it is applied and its output mode after,
    and between two cores, while one of them is applied and the other not, their bond. Core k is then a matrix, between
    what stands before (B, with the tokens) and what stands after it (Y).
    """
    length = len(cores)
    shapes = [core.shape for core in cores]
    ranks = [*(shape[0] for shape in shapes), 1]
    _, order = best_order(tuple(s[1] for s in shapes), tuple(s[2] for s in shapes), tuple(ranks))
    done = [False] * length
    held = x_TJ
    for k in order:
        left = k > 0 and done[k - 1]  # a bond that is there already is summed over, else it is opened
        right = k < length - 1 and done[k + 1]
        before = prod(_extent(shapes, done, j) for j in range(k))
        after = prod(_extent(shapes, done, j) for j in range(k + 1, length))
        before *= prod(ranks[j] for j in range(1, k) if done[j] != done[j - 1])
        after *= prod(ranks[j] for j in range(k + 2, length) if done[j] != done[j - 1])
        axes_out = ([] if left else [0]) + [1] + ([] if right else [3])
        axes_in = ([0] if left else []) + [2] + ([3] if right else [])
        core_OI = cores[k].permute(*axes_out, *axes_in).reshape(prod(shapes[k][a] for a in axes_out), -1)
        held_BIY = held.reshape(x_TJ.shape[0] * before, core_OI.shape[1], after)
        held = F.linear(held_BIY[..., 0], core_OI) if after == 1 else torch.matmul(core_OI, held_BIY)
        done[k] = True
    return held.reshape(x_TJ.shape[0], -1)


def _extent(shapes: Sequence[torch.Size], done: Sequence[bool], core: int) -> int:
    return shapes[core][1] if done[core] else shapes[core][2]
