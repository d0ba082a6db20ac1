"""Block-diagonal plus low rank: a method of a third party, with a layer of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.families import Matrix, architecture
from methods.interface import Budget, Method, MethodError, Plan, Refusal, Statistics
from methods.layers.factorised import Factorised, Spec
from methods.planning import accept, student_size, uniform_ranks
from methods.scope import Layers, select

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


class BlockLowRankLinear(Factorised, kind="block_low_rank.linear"):
    """y = (D + L R) x + b with D block-diagonal: G blocks (out/G x in/G), L (out x r), R (r x in).

    Specification: `{"type": "block_low_rank.linear", "blocks": G, "rank": r}`.
    """

    def __init__(self, out_features: int, in_features: int, blocks: int, rank: int, *, bias: bool) -> None:
        super().__init__(out_features, in_features, bias=bias)
        self.diagonal = nn.Parameter(torch.zeros(blocks, out_features // blocks, in_features // blocks))
        self.left = nn.Parameter(torch.zeros(out_features, rank))
        self.right = nn.Parameter(torch.zeros(rank, in_features))

    @classmethod
    def from_spec(cls, spec: Spec, out_features: int, in_features: int, *, bias: bool) -> Self:
        return cls(out_features, in_features, spec["blocks"], spec["rank"], bias=bias)

    @classmethod
    def count(cls, spec: Spec, out_features: int, in_features: int) -> int:
        entries: int = out_features * in_features // spec["blocks"] + spec["rank"] * (out_features + in_features)
        return entries

    @property
    def macs_per_token(self) -> int:
        return self.diagonal.numel() + self.left.numel() + self.right.numel()

    def forward(self, x: Tensor) -> Tensor:
        x_TGI = x.reshape(-1, self.diagonal.shape[0], self.diagonal.shape[2])
        y = torch.einsum("tgi,goi->tgo", x_TGI, self.diagonal).reshape(*x.shape[:-1], -1)
        return y + F.linear(F.linear(x, self.right), self.left, self.bias)

    def materialise(self) -> Tensor:
        return torch.block_diag(*self.diagonal) + self.left @ self.right


@dataclass(frozen=True, kw_only=True)
class BlockLowRank(Method):
    """Block-diagonal plus low rank: the diagonal blocks stay as they are, the rest is a truncated SVD.

    W (out x in) ~ D + L R. An example and no published method: it shows a method, a layer and tests that live outside
    weighin.
    """

    layers: Layers = "all"
    """Blocks of the model in scope, counted from 0."""
    blocks: int = 4
    """Diagonal blocks per matrix, at most; fewer where they do not divide its shape."""

    def __post_init__(self) -> None:
        if self.blocks < 2:
            raise MethodError(f"blocks: {self.blocks} would leave the matrix whole; nearest: 2")

    def plan(self, teacher_config: PretrainedConfig, budget: Budget | None) -> Plan | Refusal:
        assert budget is not None, "block_low_rank is budgeted"
        dense = architecture(teacher_config)
        scope = select(dense, self.layers)
        outside = dense.num_params - sum(each.size for each in scope)
        ranks = uniform_ranks(scope, budget.target(dense.num_params) - outside, self._size)
        surgery = {
            each.path: self._spec(each, rank) for each, rank in zip(scope, ranks, strict=True) if rank is not None
        }
        plan = Plan(size=student_size(dense, surgery), surgery=surgery)
        return accept(budget, plan, dense.num_params, f"{len(scope)} matrices are in scope, at ranks of 1 or more")

    def compress(self, teacher: PreTrainedModel, plan: Plan, *, seed: int, statistics: Statistics) -> PreTrainedModel:
        from methods.student import from_teacher

        return from_teacher(teacher, plan, _factors)

    def _spec(self, matrix: Matrix, rank: int) -> dict[str, Any]:
        shared = gcd(matrix.out_features, matrix.in_features)
        blocks = max(g for g in range(1, self.blocks + 1) if shared % g == 0)
        return {"type": BlockLowRankLinear.kind, "blocks": blocks, "rank": rank}

    def _size(self, matrix: Matrix, rank: int) -> int:
        return BlockLowRankLinear.count(self._spec(matrix, rank), matrix.out_features, matrix.in_features)


def _factors(path: str, weight: Tensor, spec: Mapping[str, Any]) -> dict[str, Tensor]:
    from methods.truncated_svd import truncated_svd

    rows, columns = (length // spec["blocks"] for length in weight.shape)
    diagonal = torch.stack(
        [weight[g * rows : (g + 1) * rows, g * columns : (g + 1) * columns] for g in range(spec["blocks"])]
    )
    left, right = truncated_svd(weight - torch.block_diag(*diagonal), spec["rank"])
    return {"diagonal": diagonal, "left": left, "right": right}
