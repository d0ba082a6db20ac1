"""What the low-rank family shares: ranks solved from the budget, matrices in scope, the student's assembly."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from methods.families import Matrix, architecture
from methods.interface import Budget, Method, Plan, Refusal, Statistics
from methods.layers.low_rank import LowRankLinear
from methods.planning import accept, student_size, uniform_ranks
from methods.scope import Layers, Matrices, select

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class LowRank(Method, ABC):
    """W (out x in) ~ L R with L (out x r) and R (r x in); a subclass says which L and R.

    Every matrix in scope keeps the same fraction of its entries, r = keep out in / (out + in), and the fraction is
    solved for the budget; biases, norms and embeddings stay. GPT-2's fused query, key and value count as one matrix.
    """

    layers: Layers = "all"
    """Blocks in scope, counted from 0."""
    matrices: Matrices = "all"
    """Matrices in scope within a block."""

    def plan(self, teacher_config: PretrainedConfig, budget: Budget | None) -> Plan | Refusal:
        assert budget is not None, "a low-rank method is budgeted"
        dense = architecture(teacher_config)
        scope = select(dense, self.layers, self.matrices)
        outside = dense.num_params - sum(each.size for each in scope)
        ranks = uniform_ranks(scope, budget.target(dense.num_params) - outside, size)
        surgery = {
            each.path: {"type": LowRankLinear.kind, "rank": rank}
            for each, rank in zip(scope, ranks, strict=True)
            if rank is not None
        }
        plan = Plan(size=student_size(dense, surgery), surgery=surgery)
        return accept(budget, plan, dense.num_params, f"{len(scope)} matrices are in scope, at ranks of 1 or more")

    def compress(self, teacher: PreTrainedModel, plan: Plan, *, seed: int, statistics: Statistics) -> PreTrainedModel:
        from methods.student import from_teacher

        def both(path: str, weight: Tensor, spec: Mapping[str, Any]) -> dict[str, Tensor]:
            left, right = self.factors(path, weight, spec["rank"], statistics)
            return {"left": left, "right": right}

        return from_teacher(teacher, plan, both)

    @abstractmethod
    def factors(self, path: str, weight: Tensor, rank: int, statistics: Statistics) -> tuple[Tensor, Tensor]:
        """L (out x rank) and R (rank x in) for the matrix at `path`."""


def size(matrix: Matrix, rank: int) -> int:
    """Parameters of both factors."""
    return rank * (matrix.out_features + matrix.in_features)
