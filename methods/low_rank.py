"""What the low-rank family shares: ranks solved from the budget, matrices in scope, the student's assembly."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from methods.families import Matrix, architecture
from methods.interface import Budget, Method, Plan, Refusal, Statistics, Unit
from methods.layers.low_rank import LowRankLinear
from methods.planning import accept, dense_macs, student_size, uniform_ranks
from methods.scope import Layers, Matrices, select

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel

MOST = 0.82
"""Two factors hold at most this fraction of their matrix' entries, else it stays dense: a product of two factors near
the dense size loses accuracy and is slower than the dense product (`tests/bench/bench_layers.py`)."""


@dataclass(frozen=True, kw_only=True)
class LowRank(Method, ABC):
    """W (out x in) ~ L R with L (out x r) and R (r x in); a subclass says which L and R.

    Every matrix in scope keeps the same fraction of its entries, r = keep out in / (out + in), and the fraction is
    solved for the budget; biases, norms and embeddings stay. GPT-2's fused query, key and value count as one matrix.
    Where the fraction would exceed `MOST`, matrices stay dense, from the last to the first, as many as the budget
    allows with the others at `MOST`. A budget in multiply-adds is solved alike: as many as there are entries.
    """

    units: ClassVar[frozenset[Unit]] = frozenset({"params", "macs"})

    layers: Layers = "all"
    """Blocks in scope, counted from 0."""
    matrices: Matrices = "all"
    """Matrices in scope within a block."""

    def plan(self, teacher_config: PretrainedConfig, budget: Budget | None) -> Plan | Refusal:
        assert budget is not None, "a low-rank method is budgeted"
        dense = architecture(teacher_config)
        scope = select(dense, self.layers, self.matrices)
        whole = dense_macs(dense) if budget.unit == "macs" else dense.num_params
        outside = whole - sum(each.size for each in scope)
        ranks = uniform_ranks(scope, budget.target(whole) - outside, size, most=MOST)
        surgery = {
            each.path: {"type": LowRankLinear.kind, "rank": rank}
            for each, rank in zip(scope, ranks, strict=True)
            if rank is not None
        }
        plan = Plan(size=student_size(dense, surgery), surgery=surgery)
        saved = dense.num_params - plan.size
        reason = f"{len(scope)} matrices are in scope, at ranks of 1 or more"
        return accept(budget, plan, whole, reason, size=whole - saved)

    def compress(self, teacher: PreTrainedModel, plan: Plan, *, seed: int, statistics: Statistics) -> PreTrainedModel:
        from methods.student import from_teacher

        matrices = {each.path: each for each in architecture(teacher.config).matrices}

        def both(path: str, weight: Tensor, spec: Mapping[str, Any]) -> dict[str, Tensor]:
            left, right = self.factors(weight, spec["rank"], of_matrix(statistics, matrices[path]))
            return {"left": left, "right": right}

        return from_teacher(teacher, plan, both)

    @abstractmethod
    def factors(self, weight: Tensor, rank: int, measured: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """L (out x rank) and R (rank x in) for one matrix.

        Args:
            measured: what `needs` names, for this matrix.
        """


def of_matrix(statistics: Statistics, matrix: Matrix) -> dict[str, Tensor]:
    """Each statistic's value for one matrix: its own, else that of the matrix whose input it shares."""
    return {name: values[matrix.path if matrix.path in values else matrix.reads] for name, values in statistics.items()}


def size(matrix: Matrix, rank: int) -> int:
    """Parameters of both factors."""
    return rank * (matrix.out_features + matrix.in_features)
