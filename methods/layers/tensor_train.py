"""Tensor-train matrices as a linear layer.

Shapes: out <= m_1 ... m_N, in <= n_1 ... n_N, core G_k (r_{k-1} x m_k x n_k x r_k), r_0 = r_N = 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import combinations, pairwise
from math import prod
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.layers.factorised import Factorised, Spec, cheapest, frontier, move_cost, product_cost

_NARROW = 16
"""Columns below which many small products are slower than a copy and one large product."""


class TensorTrainLinear(Factorised, kind="tensor_train"):
    """W[(i1..iN),(j1..jN)] = G_1[i1,j1] ... G_N[iN,jN]; sum of r_{k-1} m_k n_k r_k parameters.  Oseledets, 2011.

    Modes may multiply to more than the layer has: the input is then padded with zeros and the output cut (2306.02697).
    Applied core by core in the order with the fewest multiply-adds, or, where that costs less for the tokens at hand,
    after neighbouring cores are merged for this forward pass, all of them to the dense weight or some.

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
        self._names = [f"core_{k}" for k in range(len(out_modes))]
        for name, *shape in zip(self._names, ranks[:-1], out_modes, in_modes, ranks[1:], strict=True):
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))
        self._modes = (tuple(out_modes), tuple(in_modes), tuple(ranks))
        self._ways = frontier(every_way(*self._modes))
        self._padding = prod(in_modes) - in_features
        self._cut = prod(out_modes) > out_features

    @property
    def cores(self) -> list[Tensor]:
        """G_1 .. G_N, held as `core_0` .. so that ZeRO-3 gathers them with this module."""
        return [getattr(self, name) for name in self._names]

    @classmethod
    def from_spec(cls, spec: Spec, out_features: int, in_features: int, *, bias: bool) -> Self:
        return cls(out_features, in_features, spec["out_modes"], spec["in_modes"], spec["ranks"], bias=bias)

    @classmethod
    def count(cls, spec: Spec, out_features: int, in_features: int) -> int:
        return core_params(spec["out_modes"], spec["in_modes"], spec["ranks"])

    @property
    def macs_per_token(self) -> int:
        return core_macs(*self._modes)

    def forward(self, x: Tensor) -> Tensor:
        return self.apply_way(cheapest(self._ways, x.numel() // self.in_features), x)

    def apply_way(self, way: Way, x: Tensor) -> Tensor:
        """y = W x + b in one of the ways to do it."""
        cores = self.cores
        if way.rebuilding:
            cores = [_merged(cores[start:end]) for start, end in pairwise(way.bounds)]
        shape = x.shape
        tokens = x.numel() // self.in_features
        bias = self.bias
        held = F.pad(x, (0, self._padding)) if self._padding else x
        for step in way.steps:
            held = step.apply(held, cores[step.core], tokens, bias if step.last and not self._cut else None)
        if not self._cut:
            return held.reshape(*shape[:-1], self.out_features)
        y = held.reshape(*shape[:-1], -1)[..., : self.out_features]
        return y if bias is None else y + bias.to(y.dtype)

    def materialise(self) -> Tensor:
        return _merged(self.cores)[0, : self.out_features, : self.in_features, 0]


def _merged(cores: Sequence[Tensor]) -> Tensor:
    """Neighbouring cores as one, (r x product of the m x product of the n x r')."""
    merged = cores[0]
    for core in cores[1:]:
        product = torch.tensordot(merged, core.to(merged.dtype), dims=1)  # r M N m n r'; autocast changes the type
        merged = product.transpose(2, 3).flatten(3, 4).flatten(1, 2)
    return merged


class _Step(NamedTuple):
    """One core as a matrix (rows x columns), between what a token holds before and after it.

    The token is held in the order of the train, each core's input mode before it is applied and its output mode after,
    and, between a core that is applied and a neighbour that is not, their bond.
    """

    core: int
    axes: tuple[int, ...]
    """Axes of the core, those of the rows first."""
    in_order: bool
    """Whether the core is that matrix as it lies in memory."""
    rows: int
    columns: int
    before: int
    after: int
    last: bool

    @property
    def cost(self) -> int:
        """Cost per token, in multiply-adds (`product_cost`)."""
        batched = self.after >= _NARROW
        moved = self.before * self.after * (self.rows + self.columns) if 1 < self.after < _NARROW else 0
        return product_cost(self.before * self.after, self.rows, self.columns, batched=batched) + move_cost(moved)

    def apply(self, held: Tensor, core: Tensor, tokens: int, bias: Tensor | None) -> Tensor:
        """The next state of all tokens, (.., rows) or (.., rows, after); a bias belongs to the last step."""
        shape = (self.rows, self.columns)
        matrix = core.reshape(shape) if self.in_order else core.permute(self.axes).reshape(shape)
        fused = bias if self.before == 1 else None
        if self.after == 1:
            y = F.linear(held.reshape(-1, self.columns), matrix, fused)
        elif self.after < _NARROW:
            fused = None
            held_BYI = held.reshape(-1, self.columns, self.after).transpose(1, 2).contiguous()
            y = F.linear(held_BYI, matrix).transpose(1, 2)
        else:
            held_BIY = held.reshape(-1, self.columns, self.after)
            matrix_BOI = matrix.expand(held_BIY.shape[0], *shape)
            if fused is not None:
                return torch.baddbmm(fused.reshape(1, self.rows, self.after), matrix_BOI, held_BIY)
            y = torch.bmm(matrix_BOI, held_BIY)
        return y if bias is None or fused is not None else y.reshape(tokens, -1) + bias.to(y.dtype)


class Way(NamedTuple):
    """Merge runs of cores, then apply what is left core by core; all of them merged is the dense weight."""

    bounds: tuple[int, ...]
    """Where runs start, and N."""
    steps: tuple[_Step, ...]
    rebuilding: int
    """Cost of merging, in multiply-adds; 0 where there is nothing to merge."""
    per_token: int
    """Cost of one token, in multiply-adds."""


@cache
def every_way(out_modes: tuple[int, ...], in_modes: tuple[int, ...], ranks: tuple[int, ...]) -> tuple[Way, ...]:
    """All ways to merge, the one that merges nothing first."""
    length, ways = len(out_modes), []
    for count in range(length, 0, -1):
        for inner in combinations(range(1, length), count - 1):
            bounds = (0, *inner, length)
            runs = [slice(start, end) for start, end in pairwise(bounds)]
            rebuilding = sum(_merging(out_modes[run], in_modes[run], ranks[run.start : run.stop + 1]) for run in runs)
            merged = [tuple(prod(modes[run]) for run in runs) for modes in (out_modes, in_modes)]
            steps = _steps(merged[0], merged[1], tuple(ranks[bound] for bound in bounds))
            ways.append(Way(bounds, steps, rebuilding, sum(step.cost for step in steps)))
    return tuple(ways)


@cache
def _steps(out_modes: tuple[int, ...], in_modes: tuple[int, ...], ranks: tuple[int, ...]) -> tuple[_Step, ...]:
    """The cores as steps, in the best order."""
    length, done, steps = len(out_modes), set[int](), []
    for k in best_order(out_modes, in_modes, ranks)[1]:
        sizes = [out_modes[j] if j in done else in_modes[j] for j in range(length)]
        bonds = [ranks[j] if (j in done) != (j - 1 in done) else 1 for j in range(length)]
        shape = (ranks[k], out_modes[k], in_modes[k], ranks[k + 1])
        axes_out = [axis for axis, there in ((0, k - 1 in done), (1, False), (3, k + 1 in done)) if not there]
        axes_in = [axis for axis in range(4) if axis not in axes_out]
        axes = (*axes_out, *axes_in)
        long = [axis for axis in axes if shape[axis] > 1]
        steps.append(
            _Step(
                core=k,
                axes=axes,
                in_order=sorted(long) == long,
                rows=prod(shape[axis] for axis in axes_out),
                columns=prod(shape[axis] for axis in axes_in),
                before=prod(sizes[:k]) * prod(bonds[1:k]),
                after=prod(sizes[k + 1 :]) * prod(bonds[k + 2 :]),
                last=len(done) == length - 1,
            )
        )
        done.add(k)
    return tuple(steps)


def _merging(out_modes: Sequence[int], in_modes: Sequence[int], ranks: Sequence[int]) -> int:
    """Cost of `_merged`, in multiply-adds."""
    cost, rows = 0, ranks[0] * out_modes[0] * in_modes[0]
    for m, n, rank, after in zip(out_modes[1:], in_modes[1:], ranks[1:-1], ranks[2:], strict=True):
        cost += product_cost(rows, m * n * after, rank) + move_cost(rows * m * n * after)
        rows *= m * n
    return cost


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
