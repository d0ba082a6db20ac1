"""Sums of Kronecker products between a permutation of the rows and one of the columns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.layers.factorised import cheapest
from methods.layers.kronecker import KroneckerLinear


class PermutedKroneckerLinear(KroneckerLinear, kind="permuted_kronecker"):
    """W[rows][:, columns] = K, that is W = P^T K Q^T, with K the `KroneckerLinear` of the same specification.

    y[rows] = K x[columns] + b[rows]. `rows` (out) and `columns` (in) are index lists, int32 buffers that are saved
    and not counted as parameters; with S splits `rows` holds one permutation per split, as rows of the stacked matrix.
    TQCompressor, 2401.16367.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, out_features: int, in_features: int, *shape: Any, **options: Any) -> None:
        super().__init__(out_features, in_features, *shape, **options)
        self.register_buffer("rows", torch.arange(out_features, dtype=torch.int32))
        self.register_buffer("columns", torch.arange(in_features, dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        way = cheapest(self._ways, x.numel() // self.in_features)
        if way.order == "dense":
            return F.linear(x, self.materialise(), self.bias)
        bias = None if self.bias is None else self.bias.index_select(0, self.rows)
        y = self.apply_way(way, _permuted(x, self.columns), bias)
        return _permuted(y, inverse(self.rows))

    def materialise(self) -> Tensor:
        return self._dense().index_select(0, inverse(self.rows)).index_select(1, inverse(self.columns))


def _permuted(x: Tensor, permutation: Tensor) -> Tensor:
    """x[.., permutation]; of torch's ways the one with the fastest backward pass."""
    return x.gather(-1, permutation.long().expand(x.shape))


def inverse(permutation: Tensor) -> Tensor:
    """The permutation q with q[p[i]] = i."""
    index = torch.arange(permutation.numel(), device=permutation.device)
    return torch.empty_like(index).scatter_(0, permutation.long(), index)
