"""A frozen part of the dense weight, a low-rank term over all of it, and a few trained entries.

Shapes: O out, I in, r the rank, n entries of the sparse residual, P = ceil(O I / 8) bytes.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.layers.factorised import Factorised, Spec


class _Terms(nn.Module):
    """S1 * W0 (`kept`), U (`left`, O x r), V (`right`, r x I), and S2 (`residual`, n values at `places`)."""

    places: Tensor

    def _add_terms(self, spec: Spec, kept: tuple[int, ...], out_features: int, in_features: int) -> None:
        self.kept = nn.Parameter(torch.zeros(kept))
        self.left = nn.Parameter(torch.zeros(out_features, spec["rank"]))
        self.right = nn.Parameter(torch.zeros(spec["rank"], in_features))
        self.residual = nn.Parameter(torch.zeros(spec["residual"]))
        self.register_buffer("places", torch.arange(spec["residual"], dtype=torch.int32))


class SparseLowRankLinear(_Terms, Factorised, kind="sparse_low_rank"):
    """W = S1 * W0 + U V + S2 with any K entries of W0 kept; K + r (O + I) + n parameters.  DSEE, 2111.00160.

    The entries kept are a vector in row order, and where they go is a bit mask of P bytes (`mask`, laid out as
    `numpy.packbits` does). `places` are flat positions in W, distinct. Memory is saved and multiplications are not: the
    dense weight is put together once per forward pass and multiplied, O I multiply-adds per token.

    Specification: `{"type": "sparse_low_rank", "kept": K, "rank": r, "residual": n}`.
    """

    mask: Tensor

    def __init__(self, out_features: int, in_features: int, spec: Spec, *, bias: bool) -> None:
        super().__init__(out_features, in_features, bias=bias)
        self._add_terms(spec, (spec["kept"],), out_features, in_features)
        self.register_buffer("mask", torch.zeros(-(-out_features * in_features // 8), dtype=torch.uint8))

    @classmethod
    def from_spec(cls, spec: Spec, out_features: int, in_features: int, *, bias: bool) -> Self:
        return cls(out_features, in_features, spec, bias=bias)

    @classmethod
    def count(cls, spec: Spec, out_features: int, in_features: int) -> int:
        total: int = spec["kept"] + spec["rank"] * (out_features + in_features) + spec["residual"]
        return total

    @property
    def macs_per_token(self) -> int:
        return self.out_features * self.in_features

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.materialise(), self.bias)

    def materialise(self) -> Tensor:
        where = unpack_bits(self.mask, self.out_features * self.in_features)
        sparse = self.kept.new_zeros(where.shape).masked_scatter(where, self.kept)
        sparse = sparse.index_add(0, self.places, self.residual)
        return torch.addmm(sparse.reshape(self.out_features, self.in_features), self.left, self.right)


class StructuredLowRankLinear(_Terms, Factorised, kind="sparse_low_rank.structured"):
    """W = S1 * W0 + U V + S2 with R rows and C columns of W0 kept; R C + r (O + I) + n parameters.  DSEE, 2111.00160.

    `kept` (R x C) holds the rows in `rows` (R) and the columns in `columns` (C), int32 and ascending; `places` are flat
    positions in it, distinct, so that S2 costs nothing: y = U (V x), plus (kept + S2) x[columns] in the rows kept.

    Specification: `{"type": "sparse_low_rank.structured", "rows": R, "columns": C, "rank": r, "residual": n}`.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, out_features: int, in_features: int, spec: Spec, *, bias: bool) -> None:
        super().__init__(out_features, in_features, bias=bias)
        self._add_terms(spec, (spec["rows"], spec["columns"]), out_features, in_features)
        self.register_buffer("rows", torch.arange(spec["rows"], dtype=torch.int32))
        self.register_buffer("columns", torch.arange(spec["columns"], dtype=torch.int32))

    @classmethod
    def from_spec(cls, spec: Spec, out_features: int, in_features: int, *, bias: bool) -> Self:
        return cls(out_features, in_features, spec, bias=bias)

    @classmethod
    def count(cls, spec: Spec, out_features: int, in_features: int) -> int:
        total: int = spec["rows"] * spec["columns"] + spec["rank"] * (out_features + in_features) + spec["residual"]
        return total

    @property
    def macs_per_token(self) -> int:
        return self.kept.numel() + self.left.numel() + self.right.numel()

    def forward(self, x: Tensor) -> Tensor:
        few = x if self.kept.shape[1] == self.in_features else x.index_select(-1, self.columns)
        part = F.linear(few, self._block())
        y = F.linear(F.linear(x, self.right), self.left, self.bias)
        return y + part if self.kept.shape[0] == self.out_features else y.index_add(-1, self.rows, part)

    def _block(self) -> Tensor:
        """The rows and columns kept, S2 included."""
        return self.kept.flatten().index_add(0, self.places, self.residual).reshape(self.kept.shape)

    def materialise(self) -> Tensor:
        wide = self.kept.new_zeros(self.kept.shape[0], self.in_features).index_add(1, self.columns, self._block())
        return (self.left @ self.right).index_add(0, self.rows, wide)


def unpack_bits(packed: Tensor, length: int) -> Tensor:
    """The first `length` bits as booleans, the highest bit of a byte first, as `numpy.unpackbits` does."""
    bits = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8, device=packed.device)
    return (packed[:, None] & bits).bool().flatten()[:length]
