"""The contract of a compression method: what a method author implements and what the harness may assume."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from methods.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

TOLERANCE = 0.02
"""A student may miss its budget by this fraction of the budget, no more."""

Unit = Literal["params", "macs", "bytes"]


class MethodError(ValueError):
    """A method was asked for something it cannot do; the message is meant for the user."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The size a student must meet.

    `value` is a fraction of the teacher when it is at most 1, else an absolute number in `unit`.
    """

    unit: Unit = "params"
    value: float

    def target(self, teacher_size: int) -> int:
        """The size asked for, in `unit`, given the teacher's size in the same unit."""
        return round(self.value * teacher_size) if self.value <= 1 else round(self.value)

    def met_by(self, size: int, teacher_size: int) -> bool:
        """True when `size` is within `TOLERANCE` of the target."""
        target = self.target(teacher_size)
        return abs(size - target) <= TOLERANCE * target

    def __str__(self) -> str:
        return f"{self.unit}={self.value:g}" if self.value <= 1 else f"{self.unit}={self.value / 1e6:g}M"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What `compress` will build: decided by arithmetic on the teacher's configuration alone, JSON-able."""

    size: int
    """Unique parameters of the student (a tied matrix once)."""
    surgery: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Module path -> specification of the layer that replaces it, `{"type": "low_rank", "rank": 12, ...}`."""
    config_changes: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the teacher's configuration that differ in the student, such as its number of layers."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Anything else `compress` needs or a reader may want (layers kept, ratios)."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A method cannot meet a budget; `nearest` is the nearest fraction of the teacher that it can reach."""

    reason: str
    nearest: float | None = None


@dataclass(frozen=True, kw_only=True)
class Tap:
    """One term of intermediate-layer distillation: compare a teacher tensor with a student tensor.

    Paths are module paths in the causal LM (`transformer.h.3`). `kind="output"` compares the modules' outputs
    (their first element when they return a tuple); `kind="attention"` compares the attention maps of two attention
    modules (`transformer.h.3.attn`), softmax(q k^T / sqrt(d)) after masking.
    """

    teacher: str
    student: str
    kind: Literal["output", "attention"] = "output"
    loss: Literal["mse", "cosine", "kl"] = "mse"
    weight: float = 1.0


class Method(ABC):
    """A plug-in that turns a teacher into a smaller student.

    A subclass is a frozen keyword-only dataclass in `methods/<name>.py`, the only `Method` subclass defined there; its
    fields are its knobs in YAML, and the module's name is its name everywhere.
    """

    units: ClassVar[frozenset[Unit]] = frozenset({"params"})
    """Units this method can be budgeted in."""
    needs: ClassVar[frozenset[str]] = frozenset()
    """Calibration statistics it reads: of `gram`, `abs_mean`, `fisher`."""
    budgeted: ClassVar[bool] = True
    """False for a method that ignores budgets (the identity, a published checkpoint)."""
    stochastic: ClassVar[bool] = False
    """True when `compress` draws random numbers: the cell's seed then decides them, else all seeds share a student."""
    places: ClassVar[frozenset[str]] = frozenset()
    """Fields that say where something lies, not what it is: `fingerprint` identifies it, whatever its path."""
    exact_at_full: ClassVar[bool] = True
    """A budget of 1.0 reproduces the teacher's outputs."""

    @abstractmethod
    def plan(self, teacher_config: PretrainedConfig, budget: Budget | None) -> Plan | Refusal:
        """Solve for ranks, shapes or layers; arithmetic on the configuration alone, no weights."""

    @abstractmethod
    def compress(self, teacher: PreTrainedModel, plan: Plan, *, seed: int) -> PreTrainedModel:
        """Build the student from the teacher's weights as `plan` says. The teacher is not modified."""

    def fingerprint(self) -> str:
        """Content hash of what the method reads besides the teacher, such as a published checkpoint; else nothing."""
        return ""

    def taps(self, teacher_config: PretrainedConfig, plan: Plan) -> Sequence[Tap]:
        """What intermediate-layer distillation compares; nothing unless the method says so."""
        return ()

    def recipe(self) -> Recipe | None:
        """The method's own published training recipe, for `recipe: paper`."""
        return None
