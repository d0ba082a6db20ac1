"""Tensor-train matrices in place of the blocks' matrices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from methods.families import Matrix, architecture
from methods.interface import Budget, Method, MethodError, Plan, Refusal, Statistics
from methods.layers.tensor_train import TensorTrainLinear, core_params
from methods.planning import accept, student_size, uniform_ranks
from methods.recipe import Losses, Recipe
from methods.scope import Layers, Matrices, select
from methods.tt_svd import even_factors, max_ranks

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class TensorTrain(Method):
    """TT matrix: W[(i1..iN),(j1..jN)] ~ G_1[i1,j1] ... G_N[iN,jN], by TT-SVD.  Oseledets, 2011; arXiv 2306.02697.

    Modes are the most even factors of each dimension. Ranks are min(R, what the modes allow) with one R per matrix, so
    that every matrix in scope keeps the same fraction of its entries, solved for the budget. Unlike 2306.02697, which
    trains random cores from scratch in the FFN alone, the cores start from the teacher's weights.
    """

    layers: Layers = "all"
    """Blocks in scope, counted from 0."""
    matrices: Matrices = "all"
    """Matrices in scope within a block; 2306.02697 takes `ffn`."""
    cores: int = 3
    """N, at least 2. Not known for 2306.02697."""

    def __post_init__(self) -> None:
        if self.cores < 2:
            raise MethodError(f"cores must be at least 2, not {self.cores}")

    def plan(self, teacher_config: PretrainedConfig, budget: Budget | None) -> Plan | Refusal:
        assert budget is not None, "tensor_train is budgeted"
        dense = architecture(teacher_config)
        scope = select(dense, self.layers, self.matrices)
        outside = dense.num_params - sum(each.size for each in scope)
        ranks = uniform_ranks(scope, budget.target(dense.num_params) - outside, self._size)
        surgery = {
            each.path: self._spec(each, rank) for each, rank in zip(scope, ranks, strict=True) if rank is not None
        }
        plan = Plan(size=student_size(dense, surgery), surgery=surgery)
        return accept(budget, plan, dense.num_params, f"{len(scope)} matrices are in scope, at ranks of 1 or more")

    def _spec(self, matrix: Matrix, rank: int) -> dict[str, Any]:
        out_modes = even_factors(matrix.out_features, self.cores)
        in_modes = even_factors(matrix.in_features, self.cores)
        ranks = [min(rank, most) for most in max_ranks(out_modes, in_modes)]
        return {
            "type": TensorTrainLinear.kind,
            "out_modes": list(out_modes),
            "in_modes": list(in_modes),
            "ranks": ranks,
        }

    def _size(self, matrix: Matrix, rank: int) -> int:
        """Parameters at R = `rank`; beyond the largest useful rank, as many as keep the size increasing."""
        out_modes = even_factors(matrix.out_features, self.cores)
        in_modes = even_factors(matrix.in_features, self.cores)
        most = max_ranks(out_modes, in_modes)
        ranks = [min(rank, each) for each in most]
        return core_params(out_modes, in_modes, ranks) + max(0, rank - max(most)) * matrix.size

    def compress(self, teacher: PreTrainedModel, plan: Plan, *, seed: int, statistics: Statistics) -> PreTrainedModel:
        from methods.student import from_teacher

        return from_teacher(teacher, plan, _factors)

    def recipe(self) -> Recipe:
        """GPT-2 small on WikiText-103: 40 epochs of blocks of 512, batch 2 x 8 accumulated, warm-up of 4,000 steps.

        Reported by the scripts of the paper's repository. The epoch is taken as 118M GPT-2 tokens; the decay of the
        schedule is not known, linear to zero is taken.
        """
        return Recipe(
            tokens=40 * 118_000_000,
            batch_tokens=2 * 8 * 512,
            sequence_length=512,
            learning_rate=6.25e-5,
            schedule="linear",
            warmup_fraction=4000 / (40 * 118_000_000 / (2 * 8 * 512)),
            final_fraction=0.0,
            weight_decay=1e-4,
            losses=Losses(ce=1.0),
        )


def _factors(path: str, weight: Tensor, spec: Mapping[str, Any]) -> dict[str, Tensor]:
    from methods.tt_svd import tt_svd

    cores = tt_svd(weight, spec["out_modes"], spec["in_modes"], spec["ranks"])
    return {f"core_{k}": core for k, core in enumerate(cores)}
