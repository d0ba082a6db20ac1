"""Sums of Kronecker products as a linear layer, and Kronecker products as an embedding, without the dense weight.

Shapes: T tokens, S stacked splits, K terms, W_s (out/S x in) = sum over k of s_sk A_sk (m1 x n1) (x) B_sk (m2 x n2),
out/S = m1 m2, in = n1 n2.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, reduce
from math import prod
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.layers.factorised import Factorised, Spec, cheapest, frontier, move_cost, product_cost


class Way(NamedTuple):
    """An order of multiplication; `dense` is through W itself."""

    order: Literal["left_first", "right_first", "dense"]
    rebuilding: int
    """Cost of building W, in multiply-adds."""
    per_token: int
    """Cost of one token, in multiply-adds."""


class KroneckerLinear(Factorised, kind="kronecker"):
    """y = W x + b where W stacks S sums of K Kronecker products; S K (m1 n1 + m2 n2) parameters.

    With x as X (n1 x n2), the part of y that belongs to s is the sum of s_sk A_sk X B_sk^T (m1 x m2). Of the two orders
    of multiplication and the product with W, built for this forward pass, the one that costs least for the tokens at
    hand is taken.

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
        self._ways = frontier(every_way(splits, terms, (m1, n1), (m2, n2)))

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
        left_first = self._ways[0].order == "left_first"
        return splits * terms * (m1 * n2 * (n1 + m2) if left_first else m2 * n1 * (n2 + m1))

    def forward(self, x: Tensor) -> Tensor:
        way = cheapest(self._ways, x.numel() // self.in_features)
        return self.apply_way(way, x, self.bias)

    def apply_way(self, way: Way, x: Tensor, bias: Tensor | None) -> Tensor:
        """y = W x + b in one of the ways to do it."""
        if way.order == "dense":
            return F.linear(x, self._dense(), bias)
        left, right = self._scaled()
        if x.numel() == self.in_features and len(left) == 1 and (way.order == "left_first" or left.shape[1] == 1):
            return _one_token(x, left[0], right[0], bias, way.order)
        apply = _left_first if way.order == "left_first" else _right_first
        return apply(x.reshape(-1, self.in_features), left, right, bias).reshape(*x.shape[:-1], self.out_features)

    def materialise(self) -> Tensor:
        return self._dense()

    def _dense(self) -> Tensor:
        """The sum of the Kronecker products, stacked."""
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


def _one_token(x: Tensor, left: Tensor, right: Tensor, bias: Tensor | None, order: str) -> Tensor:
    """y = sum of A_k X B_k^T + b for one token: A as the weight of a product with few rows, which is fast."""
    terms, m1, n1 = left.shape
    x_QJ = x.reshape(n1, -1).T
    if order == "left_first":
        z_RI = F.linear(x_QJ.contiguous(), left.reshape(terms * m1, n1)).reshape(-1, m1)  # rows q, k
        y_IP = z_RI.T @ right.permute(2, 0, 1).reshape(len(z_RI), -1)
    else:
        y_IP = F.linear(right[0] @ x_QJ, left[0]).T
    return _add(y_IP.reshape(*x.shape[:-1], -1), bias)


def _left_first(x_TJ: Tensor, left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
    """y (T x S m1 m2): A_sk X for all s and k in one product, then their B_sk, for each s all k at once."""
    (splits, terms, m1, n1), (_, _, m2, n2) = left.shape, right.shape
    tokens = len(x_TJ)
    left_RJ = left.reshape(-1, n1)
    if n2 == 1:
        z_NQI = F.linear(x_TJ, left_RJ).reshape(tokens * splits, terms, m1)
        right_SQP = right.reshape(splits, terms, m2)
    else:
        x_RJ = x_TJ.reshape(tokens, n1, n2).transpose(1, 2).contiguous().reshape(tokens * n2, n1)
        z_TQSK = F.linear(x_RJ, left_RJ).reshape(tokens, n2, splits, terms * m1)
        z_NQI = z_TQSK.transpose(1, 2).reshape(tokens * splits, n2 * terms, m1)
        right_SQP = right.permute(0, 3, 1, 2).reshape(splits, n2 * terms, m2)
    right_SQP = right_SQP.to(z_NQI.dtype)
    if splits > 1:
        right_NQP = right_SQP.expand(tokens, -1, -1, -1).flatten(0, 1)
        return _add(torch.bmm(z_NQI.transpose(1, 2), right_NQP).reshape(tokens, -1), bias)
    right_NQP = right_SQP.expand(tokens, -1, -1)
    if bias is None:
        return torch.bmm(z_NQI.transpose(1, 2), right_NQP)
    return torch.baddbmm(bias.to(z_NQI.dtype).reshape(1, m1, m2), z_NQI.transpose(1, 2), right_NQP)


def _right_first(x_TJ: Tensor, left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
    """y (T x S m1 m2): X B_sk^T for all s and k in one product, then their A_sk, for each s all k at once."""
    (splits, terms, m1, n1), (_, _, m2, n2) = left.shape, right.shape
    tokens = len(x_TJ)
    right_RQ = right.transpose(1, 2).reshape(-1, n2)  # rows s, p, k
    if len(right_RQ) == 1:
        u = F.linear(x_TJ.reshape(-1, n2), right_RQ)
    else:
        u = torch.bmm(right_RQ.expand(tokens, -1, -1), x_TJ.reshape(tokens, n1, n2).transpose(1, 2))
    u_TSPKJ = u.reshape(tokens, splits, m2, terms, n1)
    if terms > 1 and tokens * m2 < n1:  # fewer rows than laying A out for one product is worth
        u_NRJ = u_TSPKJ.permute(1, 3, 0, 2, 4).contiguous().reshape(splits * terms, tokens * m2, n1)
        y_NIR = torch.bmm(left.reshape(splits * terms, m1, n1), u_NRJ.transpose(1, 2))
        y_SITP = y_NIR.reshape(splits, terms, m1, tokens, m2).sum(1)
        return _add(y_SITP.permute(2, 0, 1, 3).reshape(tokens, -1), bias)
    left_SIJ = left.transpose(1, 2).reshape(splits, m1, terms * n1)
    if splits == 1:
        y_RI = F.linear(u.reshape(tokens * m2, terms * n1), left_SIJ.reshape(m1, -1), bias if m2 == 1 else None)
        return y_RI if m2 == 1 else _add(y_RI.reshape(tokens, m2, m1).transpose(1, 2).reshape(tokens, -1), bias)
    u_SRJ = u_TSPKJ.transpose(0, 1).reshape(splits, tokens * m2, terms * n1)
    y_STPI = torch.bmm(u_SRJ, left_SIJ.transpose(1, 2)).reshape(splits, tokens, m2, m1)
    return _add(y_STPI.permute(1, 0, 3, 2).reshape(tokens, -1), bias)


def _add(y: Tensor, bias: Tensor | None) -> Tensor:
    return y if bias is None else y + bias.to(y.dtype)


@cache
def every_way(splits: int, terms: int, left: tuple[int, int], right: tuple[int, int]) -> tuple[Way, ...]:
    """The two orders and the dense product."""
    (m1, n1), (m2, n2) = left, right
    rows, columns = m1 * m2, n1 * n2
    entries = splits * rows * columns
    stacked = move_cost(splits * rows) if splits > 1 else 0
    a_first = product_cost(n2, splits * terms * m1, n1) + splits * product_cost(m1, m2, terms * n2, batched=True)
    b_first = product_cost(n1, splits * terms * m2, n2, batched=True) + splits * product_cost(m2, m1, terms * n1)
    return (
        Way("left_first", 0, a_first + stacked + (move_cost(columns) if n2 > 1 else 0)),
        Way("right_first", 0, b_first + stacked + (move_cost(2 * splits * rows) if m2 > 1 else 0)),
        Way("dense", terms * entries + move_cost(2 * entries), product_cost(1, splits * rows, columns)),
    )


def kronecker_macs(m1: int, n1: int, m2: int, n2: int) -> int:
    """Multiply-adds per token of A (m1 x n1) (x) B (m2 x n2), in the cheaper of the two orders."""
    return min(m1 * n2 * (n1 + m2), m2 * n1 * (n2 + m1))


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
