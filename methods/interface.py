"""The contract of a compression method: what a method author implements and what the harness may assume."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from methods.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel

TOLERANCE = 0.02
"""A student may miss its budget by this fraction of the budget, no more."""

Unit = Literal["params", "macs", "bytes"]

Statistic = Literal["gram", "abs_mean", "fisher_rows", "fisher_columns", "block_influence"]
"""What the teacher's calibration can measure (`methods.calibration` gives the formulas)."""
Statistics = Mapping[str, Mapping[str, "Tensor"]]
"""Statistic -> module path -> value, in float64; empty for a method that needs none."""
Rule = Literal["unique", "without_output_matrix", "scales_folded"]
"""How parameters are counted (`methods.planning.counted`): ours first, then those of papers."""


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
    trained: Sequence[str] = ()
    """Names of the parameters that train, by their last component (`left`, `right`), besides a new classification
    head; the rest is frozen. Empty: everything trains."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Anything else `compress` needs or a reader may want (layers kept, ratios)."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One step of a staged method: compress to `plan`, then train for `share` of the recipe's tokens."""

    plan: Plan
    share: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A published configuration: fields of the method, and the parameter counts that its paper or release states."""

    fields: Mapping[str, Any]
    counts: Mapping[Rule, int]
    """Counts for GPT-2 small by counting rule."""
    source: str


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

    With `project` an output tap compares the teacher with a learned linear map of the student's output, for students of
    another width (FitNets, Romero et al., arXiv 1412.6550): it trains with the student and is left behind.
    """

    teacher: str
    student: str
    kind: Literal["output", "attention"] = "output"
    loss: Literal["mse", "cosine", "kl"] = "mse"
    weight: float = 1.0
    project: bool = False


class Method(ABC):
    """A plug-in that turns a teacher into a smaller student.

    A subclass is a frozen keyword-only dataclass in `methods/<name>.py`, the only `Method` subclass defined there; its
    fields are its knobs in YAML, and the module's name is its name everywhere.
    """

    units: ClassVar[frozenset[Unit]] = frozenset({"params"})
    """Units this method can be budgeted in."""
    budgeted: ClassVar[bool] = True
    """False for a method that ignores budgets (the identity, a published checkpoint)."""
    places: ClassVar[frozenset[str]] = frozenset()
    """Fields that say where something lies, not what it is: `fingerprint` identifies it, whatever its path."""
    presets: ClassVar[Mapping[str, Preset]] = {}
    """Published configurations by name; a method with some has a field `preset`, and `fields.settle` applies it."""

    @property
    def needs(self) -> frozenset[Statistic]:
        """Calibration statistics that `refine` and `compress` read."""
        return frozenset()

    @property
    def stochastic(self) -> bool:
        """True when `compress` draws random numbers: the cell's seed then decides them, else all seeds share one."""
        return False

    @property
    def exact_at_full(self) -> bool:
        """A budget of 1.0 reproduces the teacher's outputs."""
        return True

    @property
    def keeps_weights(self) -> bool:
        """The student's weights are the teacher's or approximate them, biases included; else drawn, or published."""
        return True

    @abstractmethod
    def plan(self, teacher_config: PretrainedConfig, budget: Budget | None) -> Plan | Refusal:
        """Solve for ranks, shapes or layers; arithmetic on the configuration alone, no weights."""

    @abstractmethod
    def compress(self, teacher: PreTrainedModel, plan: Plan, *, seed: int, statistics: Statistics) -> PreTrainedModel:
        """Build the student from the teacher's weights as `plan` says. The teacher is not modified.

        In a later phase `teacher` is the student that the phase before left, some of its layers factorised already.

        Args:
            statistics: what `needs` names, measured on the teacher.
        """

    def refine(self, teacher: PreTrainedModel, plan: Plan, statistics: Statistics) -> Plan:
        """Redistribute the plan's parameters once weights and statistics are known; its size stays within tolerance."""
        return plan

    def phases(self, teacher_config: PretrainedConfig, plan: Plan) -> Sequence[Phase]:
        """The steps of a staged method, each plan containing the one before; the last one's is `plan`.

        Phases follow from the configuration alone. A training-free recipe goes to the last plan at once.
        """
        return (Phase(plan=plan),)

    def fingerprint(self) -> str:
        """Content hash of what the method reads besides the teacher, such as a published checkpoint; else nothing."""
        return ""

    def taps(self, teacher_config: PretrainedConfig, plan: Plan) -> Sequence[Tap]:
        """What intermediate-layer distillation compares; nothing unless the method says so."""
        return ()

    def recipe(self) -> Recipe | None:
        """The method's own published training recipe, for `recipe: paper`."""
        return None
