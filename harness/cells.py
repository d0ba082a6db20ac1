"""What a sweep asks for: its contenders, its cells, and the stages that make each cell's record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.graph import Stage, ancestors_first
from harness.spec import Sweep
from methods.interface import Budget, Method, Phase, Plan, Refusal
from methods.recipe import Recipe
from results.record import Control
from tasks.interface import Task

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A method with its fields, as a sweep names it."""

    name: str
    target: str
    """`module:Class`, resolved once, here on the driver."""
    method: Method
    fields: Mapping[str, Any]
    """Those that differ from their defaults."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """The fields that say what the method does."""
        return {name: value for name, value in self.fields.items() if name not in self.method.places}

    @property
    def places(self) -> Mapping[str, Any]:
        """The fields that only say where something lies, as absolute paths."""
        given = {name: value for name, value in self.fields.items() if name in self.method.places}
        return {name: str(Path(value).expanduser().absolute()) for name, value in given.items()}

    @property
    def title(self) -> str:
        """`svd matrices=ffn`: tells the points of a grid apart."""
        return " ".join([self.name, *(f"{name}={value}" for name, value in self.fields.items())])


@dataclass(frozen=True, kw_only=True)
class CellPlan:
    """One cell, and the stages whose artifacts make its record; or why it is skipped."""

    contender: Contender
    budget: Budget | None
    recipe_kind: str
    recipe: Recipe | None
    seed: int
    row: str
    solved: Plan | Refusal
    control: Control | None = None
    """What it leaves out of the cell whose twin it is, if it is one."""
    phases: Sequence[Phase] = ()
    """The steps of its training: one, unless the method is staged."""
    stages: Mapping[str, Stage] = field(default_factory=dict)
    """What the record reads: `compress`, `distill`, `profile`, `<task>`, `<task> before`."""

    @cached_property
    def needed(self) -> list[Stage]:
        """Every stage that the cell's stages rest on, and themselves, parents before children."""
        return list(ancestors_first(self.stages.values()))

    @property
    def refusal(self) -> str:
        """Why the cell is skipped; empty when it is not."""
        if not isinstance(self.solved, Refusal):
            return ""
        nearest = self.solved.nearest
        return self.solved.reason + (f"; nearest is {nearest:.3g}" if nearest is not None else "")

    @property
    def name(self) -> str:
        """`kronecker params=0.66 shared #0`, `kronecker params=0.66 shared no_teacher #0`."""
        budget = [str(self.budget)] if self.budget else []
        control = [self.control.kind] if self.control else []
        return " ".join([self.contender.title, *budget, self.recipe_kind, *control, f"#{self.seed}"])


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """Everything a run needs to know."""

    sweep: Sweep
    cells: list[CellPlan]
    tasks: Mapping[str, Task]
    mirror: Path | None
    config: PretrainedConfig
    """The teacher's."""
    teacher_params: int
    settings: Mapping[str, str]
    """Fine-tuned task -> how it is trained, in words and a digest: rows trained otherwise are not compared."""

    @cached_property
    def stages(self) -> list[Stage]:
        """All stages, parents before children, each once."""
        return list(ancestors_first(stage for cell in self.cells for stage in cell.stages.values()))
