"""Kronecker products as a linear layer and as an embedding, applied without building the dense weight.

Shapes: T tokens, S stacked splits, W_s (out/S x in) = A_s (m1 x n1) (x) B_s (m2 x n2), out/S = m1 m2, in = n1 n2.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.layers.factorised import Factorised, Spec


class KroneckerLinear(Factorised, kind="kronecker"):
    """y = W x + b where W stacks S Kronecker products A_s (x) B_s; S (m1 n1 + m2 n2) parameters.

    With x as X (n1 x n2), the part of y that belongs to s is A_s X B_s^T (m1 x m2). The cheaper of the two orders of
    multiplication is taken, by multiply-adds and then by the size of the intermediate.

    Specification: `{"type": "kronecker", "left": [m1, n1], "splits": S}`; B's shape follows from the layer's.
    """

    def __init__(self, out_features: int, in_features: int, left: tuple[int, int], splits: int, *, bias: bool) -> None:
        super().__init__(out_features, in_features, bias=bias)
        m1, n1 = left
        m2, n2 = out_features // splits // m1, in_features // n1
        assert splits * m1 * m2 == out_features, f"{splits} x {m1} rows do not divide {out_features}"
        assert n1 * n2 == in_features, f"{n1} columns do not divide {in_features}"
        self.left = nn.Parameter(torch.zeros(splits, m1, n1))
        self.right = nn.Parameter(torch.zeros(splits, m2, n2))
        self._left_first = _cost(m1, n1, m2, n2) < _cost(m2, n2, m1, n1)

    @classmethod
    def from_spec(cls, spec: Spec, out_features: int, in_features: int, *, bias: bool) -> Self:
        m1, n1 = spec["left"]
        return cls(out_features, in_features, (m1, n1), spec["splits"], bias=bias)

    @classmethod
    def count(cls, spec: Spec, out_features: int, in_features: int) -> int:
        (m1, n1), splits = spec["left"], spec["splits"]
        total: int = splits * m1 * n1 + (out_features // m1) * (in_features // n1)
        return total

    @property
    def macs_per_token(self) -> int:
        (splits, m1, n1), (_, m2, n2) = self.left.shape, self.right.shape
        return splits * min(_cost(m1, n1, m2, n2)[0], _cost(m2, n2, m1, n1)[0])

    def forward(self, x: Tensor) -> Tensor:
        first, second = (self.left, self.right) if self._left_first else (self.right, self.left)
        n1, n2 = self.left.shape[2], self.right.shape[2]
        x_TXY = x.reshape(-1, n1, n2)
        if self._left_first:
            x_TXY = x_TXY.transpose(1, 2)
        y_STPQ = _apply(x_TXY, first, second)
        order = (1, 0, 3, 2) if self._left_first else (1, 0, 2, 3)
        y = y_STPQ.permute(order).reshape(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias

    def materialise(self) -> Tensor:
        return torch.cat([torch.kron(left, right) for left, right in zip(self.left, self.right, strict=True)])


def _cost(m1: int, n1: int, m2: int, n2: int) -> tuple[int, int]:
    """Multiply-adds and intermediate size per token and split when the m1 x n1 factor is applied first."""
    return m1 * n2 * (n1 + m2), m1 * n2


def _apply(x_TXY: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """`second_s X first_s^T` (S x T x P x Q) for X (T x X x Y), first (S x Q x Y), second (S x P x X)."""
    tokens, x, y = x_TXY.shape
    splits, q, _ = first.shape
    z_TXSQ = F.linear(x_TXY, first.reshape(splits * q, y)).reshape(tokens, x, splits, q)
    z_SRX = z_TXSQ.permute(2, 0, 3, 1).reshape(splits, tokens * q, x)
    return torch.bmm(z_SRX, second.transpose(1, 2)).reshape(splits, tokens, q, -1).transpose(2, 3)


class KroneckerEmbedding(Factorised, kind="kronecker.embedding"):
    """Row i of W (v x d) is A[i] (x) B with A (v x d/f) and B (1 x f); v d/f + f parameters.  KnGPT2, 2110.08152.

    Specification: `{"type": "kronecker.embedding", "factor": f}`.
    """

    def __init__(self, vocab: int, width: int, factor: int) -> None:
        super().__init__(vocab, width, bias=False)
        assert width % factor == 0, f"{factor} does not divide the width {width}"
        self.left = nn.Parameter(torch.zeros(vocab, width // factor))
        self.right = nn.Parameter(torch.zeros(1, factor))

    @classmethod
    def from_spec(cls, spec: Spec, out_features: int, in_features: int, *, bias: bool) -> Self:
        assert not bias, "an embedding has no bias"
        return cls(out_features, in_features, spec["factor"])

    @classmethod
    def count(cls, spec: Spec, out_features: int, in_features: int) -> int:
        factor: int = spec["factor"]
        return out_features * in_features // factor + factor

    @property
    def macs_per_token(self) -> int:
        """Scaling A's row, which no matrix product does: nothing."""
        return 0

    @property
    def head_macs_per_token(self) -> int:
        """Multiply-adds of `logits` for one token."""
        return self.left.numel() + self.in_features

    def forward(self, tokens: Tensor) -> Tensor:
        return (F.embedding(tokens, self.left)[..., None] * self.right).flatten(-2)

    def logits(self, hidden: Tensor) -> Tensor:
        """W h, as A (H B^T) with h as H (d/f x f)."""
        folded = F.linear(hidden.reshape(*hidden.shape[:-1], -1, self.right.shape[1]), self.right)
        return F.linear(folded[..., 0], self.left)

    def materialise(self) -> Tensor:
        return torch.kron(self.left, self.right)
