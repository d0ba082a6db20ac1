"""The teacher itself: a reference line whatever the budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from methods.families import architecture
from methods.interface import Budget, Method, Plan, Statistics

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class Identity(Method):
    """The teacher itself, uncompressed: the reference that every student is compared with."""

    budgeted = False

    def plan(self, teacher_config: PretrainedConfig, budget: Budget | None) -> Plan:
        return Plan(size=architecture(teacher_config).num_params)

    def compress(self, teacher: PreTrainedModel, plan: Plan, *, seed: int, statistics: Statistics) -> PreTrainedModel:
        from methods.student import from_teacher

        return from_teacher(teacher, plan)
