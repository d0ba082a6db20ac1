"""What layer dropping shares: the depth solved from the budget, and the student made of the blocks that are kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from methods.families import architecture
from methods.interface import Budget, Method, MethodError, Plan, Refusal, Statistics
from methods.planning import accept

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class LayerDropping(Method, ABC):
    """Student block i is a copy of teacher block kept[i]; a subclass says which blocks are kept.

    Embeddings, final norm and output matrix are copied, and nothing is factorised. The depth is the one whose size is
    nearest to the budget; a budget that no whole number of blocks meets is refused.
    """

    kept_layers: int | None = None
    """Number of blocks to keep; solved from the budget where it is left out."""

    def __post_init__(self) -> None:
        if self.kept_layers is not None and self.kept_layers < 1:
            raise MethodError(f"kept_layers: {self.kept_layers} is too few; nearest: 1")

    def plan(self, teacher_config: PretrainedConfig, budget: Budget | None) -> Plan | Refusal:
        dense = architecture(teacher_config)
        depth = len(dense.blocks)
        layers = self.count(teacher_config, budget)
        if layers > depth:
            raise MethodError(f"kept_layers: {layers} of a model with {depth} blocks; nearest: {depth}")
        plan = Plan(
            size=size_with(teacher_config, layers),
            config_changes={"num_hidden_layers": layers},
            details=self.choice(depth, layers),
        )
        return accept(budget, plan, dense.num_params, f"{layers} of {depth} layers is the nearest depth")

    def count(self, config: PretrainedConfig, budget: Budget | None) -> int:
        """Blocks to keep: as asked for, else as many as bring the size nearest to the budget."""
        if self.kept_layers is not None:
            return self.kept_layers
        assert budget is not None, "a method that drops layers is budgeted"
        dense = architecture(config)
        target = budget.target(dense.num_params)
        return min(range(1, len(dense.blocks) + 1), key=lambda k: abs(size_with(config, k) - target))

    @abstractmethod
    def choice(self, depth: int, layers: int) -> dict[str, Any]:
        """The plan's details for `layers` of `depth` blocks: `kept`, their numbers in the teacher, ascending."""

    def compress(self, teacher: PreTrainedModel, plan: Plan, *, seed: int, statistics: Statistics) -> PreTrainedModel:
        from methods.student import from_teacher

        kept: Sequence[int] = plan.details["kept"]
        blocks = architecture(teacher.config).blocks
        moved = {blocks[i]: blocks[k] for i, k in enumerate(kept)}

        def source(path: str) -> str:
            block = ".".join(path.split(".")[:3])
            return moved.get(block, block) + path[len(block) :]

        return from_teacher(teacher, plan, source=source)


def size_with(config: PretrainedConfig, layers: int) -> int:
    """Parameters of a model of this configuration with that many blocks."""
    changed = copy(config)
    changed.num_hidden_layers = layers
    return architecture(changed).num_params
