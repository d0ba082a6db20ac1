"""Sums of Kronecker products as a linear layer, and Kronecker products as an embedding, without the dense weight.

Shapes: T tokens, S stacked splits, K terms, W_s (out/S x in) = sum over k of s_sk A_sk (m1 x n1) (x) B_sk (m2 x n2),
out/S = m1 m2, in = n1 n2.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import prod
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.layers.factorised import Factorised, Spec


class KroneckerLinear(Factorised, kind="kronecker"):
    """y = W x + b where W stacks S sums of K Kronecker products; S K (m1 n1 + m2 n2) parameters.

    With x as X (n1 x n2), the part of y that belongs to s is the sum of s_sk A_sk X B_sk^T (m1 x m2). The cheaper of
    the two orders of multiplication is taken, by multiply-adds and then by the size of the intermediate.

    Specification: `{"type": "kronecker", "left": [m1, n1], "splits": S, "terms": K, "scaled": bool}`; one term and no
    scales where they are left out; B's shape follows from the layer's. With `scaled` each term has a learned scalar
    s_sk (`scales`), else s_sk = 1.  Krony-PT, 2412.12351.
    """

    def __init__(
        self,
        out_features: int,
        in_features: int,
        left: tuple[int, int],
        splits: int = 1,
        terms: int = 1,
        *,
        scaled: bool = False,
        bias: bool,
    ) -> None:
        super().__init__(out_features, in_features, bias=bias)
        m1, n1 = left
        m2, n2 = out_features // splits // m1, in_features // n1
        assert splits * m1 * m2 == out_features, f"{splits} x {m1} rows do not divide {out_features}"
        assert n1 * n2 == in_features, f"{n1} columns do not divide {in_features}"
        self.left = nn.Parameter(torch.zeros(splits, terms, m1, n1))
        self.right = nn.Parameter(torch.zeros(splits, terms, m2, n2))
        self.scales = nn.Parameter(torch.ones(splits, terms)) if scaled else None
        self._left_first = _cost(m1, n1, m2, n2) < _cost(m2, n2, m1, n1)

    @classmethod
    def from_spec(cls, spec: Spec, out_features: int, in_features: int, *, bias: bool) -> Self:
        m1, n1 = spec["left"]
        terms, scaled = spec.get("terms", 1), spec.get("scaled", False)
        return cls(out_features, in_features, (m1, n1), spec["splits"], terms, scaled=scaled, bias=bias)

    @classmethod
    def count(cls, spec: Spec, out_features: int, in_features: int) -> int:
        (m1, n1), splits, terms = spec["left"], spec["splits"], spec.get("terms", 1)
        entries = splits * m1 * n1 + (out_features // m1) * (in_features // n1)
        total: int = terms * entries + (splits * terms if spec.get("scaled", False) else 0)
        return total

    @property
    def macs_per_token(self) -> int:
        (splits, terms, m1, n1), (_, _, m2, n2) = self.left.shape, self.right.shape
        return splits * terms * kronecker_macs(m1, n1, m2, n2)

    def forward(self, x: Tensor) -> Tensor:
        y = self._product(x)
        return y if self.bias is None else y + self.bias

    def _product(self, x: Tensor) -> Tensor:
        """W x, the bias not included."""
        left, right = self._scaled()
        n1, n2 = left.shape[3], right.shape[3]
        x_TXY = x.reshape(-1, n1, n2)
        if self._left_first:
            y_STPQ = _apply(x_TXY.transpose(1, 2), left, right).transpose(2, 3)
        else:
            y_STPQ = _apply(x_TXY, right, left)
        return y_STPQ.permute(1, 0, 2, 3).reshape(*x.shape[:-1], self.out_features)

    def materialise(self) -> Tensor:
        left, right = self._scaled()
        weight_SIPJQ: Tensor = torch.einsum("skij,skpq->sipjq", left, right)
        return weight_SIPJQ.reshape(self.out_features, self.in_features)

    def _scaled(self) -> tuple[Tensor, Tensor]:
        """The factors, with the scales multiplied into the smaller one."""
        if self.scales is None:
            return self.left, self.right
        scales = self.scales[..., None, None]
        if self.left.numel() < self.right.numel():
            return self.left * scales, self.right
        return self.left, self.right * scales


def kronecker_macs(m1: int, n1: int, m2: int, n2: int) -> int:
    """Multiply-adds per token of A (m1 x n1) (x) B (m2 x n2), in the cheaper of the two orders."""
    return min(_cost(m1, n1, m2, n2)[0], _cost(m2, n2, m1, n1)[0])


def _cost(m1: int, n1: int, m2: int, n2: int) -> tuple[int, int]:
    """Multiply-adds and intermediate size per token, split and term when the m1 x n1 factor is applied first."""
    return m1 * n2 * (n1 + m2), m1 * n2


def _apply(x_TXY: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Sum over k of `second_sk X first_sk^T` (S x T x P x Q): X (X x Y), first (S x K x Q x Y), second (.. P x X)."""
    tokens, x, y = x_TXY.shape
    splits, terms, q, _ = first.shape
    z_TXSKQ = F.linear(x_TXY, first.reshape(-1, y)).reshape(tokens, x, splits, terms, q)
    z_SRX = z_TXSKQ.permute(2, 0, 4, 3, 1).reshape(splits, tokens * q, terms * x)
    second_SXP = second.permute(0, 1, 3, 2).reshape(splits, terms * x, -1)
    return torch.bmm(z_SRX, second_SXP).reshape(splits, tokens, q, -1).transpose(2, 3)


class KroneckerEmbedding(Factorised, kind="kronecker.embedding"):
    """Row i of W (v x d) is A[i] (x) B_0 (x) B_1 .., A (v x d/f), B_j (1 x f_j), f the product of all f_j.

    v d/f + sum of f_j parameters, `left`, `right_0`, `right_1`, ... One factor of 2 is KnGPT2's (2110.08152), two of 2
    are TQCompressor's (2401.16367).

    Specification: `{"type": "kronecker.embedding", "factors": [f_0, f_1, ..]}`.
    """

    def __init__(self, vocab: int, width: int, factors: Sequence[int]) -> None:
        super().__init__(vocab, width, bias=False)
        assert width % prod(factors) == 0, f"{list(factors)} do not divide the width {width}"
        self.left = nn.Parameter(torch.zeros(vocab, width // prod(factors)))
        for j, factor in enumerate(factors):
            self.register_parameter(f"right_{j}", nn.Parameter(torch.zeros(1, factor)))
        self._length = len(factors)

    @classmethod
    def from_spec(cls, spec: Spec, out_features: int, in_features: int, *, bias: bool) -> Self:
        assert not bias, "an embedding has no bias"
        return cls(out_features, in_features, spec["factors"])

    @classmethod
    def count(cls, spec: Spec, out_features: int, in_features: int) -> int:
        factors: list[int] = spec["factors"]
        return out_features * in_features // prod(factors) + sum(factors)

    @property
    def right(self) -> Tensor:
        """B_0 (x) B_1 .. (1 x f)."""
        rights: list[Tensor] = [getattr(self, f"right_{j}") for j in range(self._length)]
        return reduce(torch.kron, rights)

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
        right = self.right
        folded = F.linear(hidden.reshape(*hidden.shape[:-1], -1, right.shape[1]), right)
        return F.linear(folded[..., 0], self.left)

    def materialise(self) -> Tensor:
        return torch.kron(self.left, self.right)
