"""What the checks look at: a teacher, its statistics, and the students that a method makes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from methods import student as students
from methods.interface import Budget, Method, MethodError, Plan, Refusal, Statistic, Unit
from methods.layers.factorised import Factorised
from methods.tiny import Teacher

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OTHER_FRACTIONS = (0.85, 0.5, 0.95, 0.3)
"""Asked for where several budgets lead to one plan, as for a method that reaches few sizes."""


class NotApplicable(Exception):
    """The method declares that a check does not apply to it, or leaves nothing to check."""


class UndeclaredStatistic(MethodError, KeyError):
    """A method reads a statistic that its `needs` does not name."""

    def __str__(self) -> str:
        return str(self.args[0])


class Measured(Mapping[str, Mapping[str, Tensor]]):
    """Exactly the statistics that a method declares; `read` notes those it looks at."""

    def __init__(self, values: Mapping[str, Mapping[str, Tensor]]) -> None:
        self._values = values
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Mapping[str, Tensor]:
        if name not in self._values:
            held = ", ".join(sorted(self._values)) or "nothing"
            raise UndeclaredStatistic(f"reads the statistic {name!r}, but `needs` names {held}; add it to `needs`")
        self.read.add(name)
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def measured(method: Method, teacher: Teacher) -> Measured:
    """What `method` needs, on the teacher's fixed random tokens."""
    needs: frozenset[Statistic] = method.needs
    if not needs:
        return Measured({})
    from methods.calibration import measure

    return Measured({name: measure(name, teacher.model, teacher.batches()) for name in sorted(needs)})


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A student at one budget; `budget` is None for a method that ignores budgets."""

    budget: Budget | None
    planned: Plan
    """By arithmetic alone."""
    plan: Plan
    """Refined with weights and statistics; what the student is built to."""
    student: PreTrainedModel

    @property
    def at(self) -> str:
        return f"at {self.budget}" if self.budget else "without a budget"


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One teacher and what the method made of it, from the smallest student to the largest."""

    method: Method
    source: Teacher
    statistics: Measured
    samples: list[Sample] = field(default_factory=list)
    before: Mapping[str, Tensor]
    """The teacher's tensors before the method saw it."""

    @property
    def teacher(self) -> PreTrainedModel:
        return self.source.model

    @property
    def tokens(self) -> Tensor:
        return self.source.tokens()


@dataclass(frozen=True, kw_only=True)
class Check:
    """A title, a function that yields problems, and whether it is part of the fast kit."""

    title: str
    run: Callable[[Bench], Iterator[str]]
    fast: bool = True


def prepare(method: Method, source: Teacher) -> Bench:
    """The teacher measured; no student yet."""
    before = {name: each.clone() for name, each in source.model.state_dict().items()}
    return Bench(method=method, source=source, statistics=measured(method, source), before=before)


def fill(bench: Bench, fractions: tuple[float, ...]) -> None:
    """Plan, refine and compress at as many different plans as there are fractions, if the method reaches them."""
    method, teacher = bench.method, bench.teacher
    for budget, planned in plans(method, bench.source, fractions):
        plan = method.refine(teacher, planned, bench.statistics)
        student = method.compress(teacher, plan, seed=0, statistics=bench.statistics)
        bench.samples.append(Sample(budget=budget, planned=planned, plan=plan, student=student))
    bench.samples.sort(key=lambda sample: sample.plan.size)


def plans(method: Method, source: Teacher, fractions: tuple[float, ...]) -> list[tuple[Budget | None, Plan]]:
    """Different plans for fractions of the teacher, or for the nearest ones that the method says it can reach."""
    if not method.budgeted:
        answer = method.plan(source.model.config, None)
        if isinstance(answer, Refusal):
            raise MethodError(f"plan refuses {source.label} without a budget ({answer.reason}); it declares no budgets")
        return [(None, answer)]
    found: list[tuple[Budget | None, Plan]] = []
    for k, fraction in enumerate((*fractions, *OTHER_FRACTIONS)):
        if k >= len(fractions) and len(found) >= len(fractions):
            break
        budget, plan = nearest_plan(method, source, fraction, _unit(method))
        if plan not in [other for _, other in found]:
            found.append((budget, plan))
    return found


def nearest_plan(method: Method, source: Teacher, fraction: float, unit: Unit) -> tuple[Budget, Plan]:
    """The plan for a fraction of the teacher, or for the nearest that the method says it can reach, and its budget.

    Raises:
        MethodError: it refuses the budget without a nearest one, or the one that it named itself.
    """
    config = source.model.config
    budget = Budget(unit=unit, value=fraction)
    answer = method.plan(config, budget)
    if isinstance(answer, Plan):
        return budget, answer
    if answer.nearest is None:
        raise MethodError(
            f"plan refuses {fraction} of {source.label} ({answer.reason}) and names no nearest fraction;"
            " give `Refusal(nearest=...)`"
        )
    whole = students.count_params(source.model) if unit == "params" else 0
    near = round(answer.nearest * whole) if answer.nearest > 1 and whole else answer.nearest
    budget = Budget(unit=unit, value=near)
    again = method.plan(config, budget)
    if isinstance(again, Refusal):
        raise MethodError(
            f"plan refuses {fraction} of {source.label} and then {answer.nearest:.4f}, which it named itself as nearest"
        )
    return budget, again


def _unit(method: Method) -> Unit:
    return "params" if "params" in method.units else sorted(method.units)[0]


@torch.no_grad()
def logits(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    """Next-token logits (batch x length x vocabulary)."""
    found: Tensor = model(tokens, use_cache=False).logits
    return found


def relative(a: Tensor, b: Tensor) -> float:
    """||a - b|| / ||b||, in float64."""
    difference = torch.linalg.vector_norm(a.double() - b.double())
    return float(difference / torch.linalg.vector_norm(b.double()).clamp_min(torch.finfo(torch.float64).tiny))


def factorised(model: PreTrainedModel) -> list[tuple[str, Factorised]]:
    """Replaced layers by path."""
    return [(path, module) for path, module in model.named_modules() if isinstance(module, Factorised)]
