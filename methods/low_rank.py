"""Truncated singular value decomposition of the blocks' matrices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from methods.families import Matrix, architecture
from methods.interface import Budget, Method, Plan, Refusal
from methods.layers.low_rank import LowRankLinear
from methods.planning import accept, student_size, uniform_ranks
from methods.scope import Layers, Matrices, select

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class LowRank(Method):
    """Truncated SVD: W (out x in) ~ L R with L (out x r) and R (r x in).  Eckart & Young, 1936.

    Every matrix in scope keeps the same fraction of its entries, r = keep out in / (out + in), and the fraction is
    solved for the budget; biases, norms and embeddings stay. GPT-2's fused query, key and value count as one matrix.
    The singular values are split evenly, L = U sqrt(S) and R = sqrt(S) V^T.
    """

    layers: Layers = "all"
    """Blocks in scope, counted from 0."""
    matrices: Matrices = "all"
    """Matrices in scope within a block."""

    def plan(self, teacher_config: PretrainedConfig, budget: Budget | None) -> Plan | Refusal:
        assert budget is not None, "low_rank is budgeted"
        dense = architecture(teacher_config)
        scope = select(dense, self.layers, self.matrices)
        outside = dense.num_params - sum(each.size for each in scope)
        ranks = uniform_ranks(scope, budget.target(dense.num_params) - outside, _size)
        surgery = {
            each.path: {"type": LowRankLinear.kind, "rank": rank}
            for each, rank in zip(scope, ranks, strict=True)
            if rank is not None
        }
        plan = Plan(size=student_size(dense, surgery), surgery=surgery)
        return accept(budget, plan, dense.num_params, f"{len(scope)} matrices are in scope, at ranks of 1 or more")

    def compress(self, teacher: PreTrainedModel, plan: Plan, *, seed: int) -> PreTrainedModel:
        from methods.student import from_teacher

        return from_teacher(teacher, plan, _factors)


def _size(matrix: Matrix, rank: int) -> int:
    return rank * (matrix.out_features + matrix.in_features)


def _factors(path: str, weight: Tensor, spec: Mapping[str, Any]) -> dict[str, Tensor]:
    from methods.truncated_svd import truncated_svd

    left, right = truncated_svd(weight, spec["rank"])
    return {"left": left, "right": right}
