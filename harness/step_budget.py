"""From a recipe's budget to steps, decided before anything runs: how many a student gets, and how many are trials."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from harness.errors import SpecError
from methods.recipe import RateGrid, Recipe

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from methods.interface import Plan


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training of a student (a phase's, of a staged method), every recipe's budget in tokens."""

    trials: Sequence[Recipe] = ()
    """One per rate of the recipe's grid, the smallest rate first."""
    final: Recipe
    """The training that counts; with trials it still holds the grid, and takes the best rate."""
    flops_per_token: float | None = None
    """Counted where the budget is in FLOPs."""


def trainings(
    where: str, what: str, recipe: Recipe, shares: Sequence[float], token_flops: Callable[[int], float]
) -> list[Training]:
    """What each phase trains for; `token_flops` counts a phase's student, and the teacher where a loss needs it.

    Raises:
        SpecError: a phase or a trial gets no step, or a warm-up is longer than its run; `where` is the recipe's place
            in the sweep and `what` the student.
    """
    costs = [token_flops(phase) if recipe.flops else None for phase in range(len(shares))]
    steps = _phase_steps(recipe, shares, [recipe.batch_tokens * (cost or 0.0) for cost in costs])
    found = []
    for number, (count, cost) in enumerate(zip(steps, costs, strict=True), 1):
        if count < 1:
            total = f"{sum(steps)} steps of {recipe.batch_tokens} tokens"
            raise SpecError(f"{where}: {total} leave none for phase {number} of {len(steps)} of {what}")
        of = "" if len(steps) == 1 else f" of phase {number} of {what}"
        whole = recipe if len(steps) == 1 and recipe.tokens else _cut(recipe, count)
        trials, final = _trials(where, whole, of) if recipe.rates else ([], whole)
        if (recipe.warmup_steps or 0) > final.steps:
            raise SpecError(
                f"{where}: warmup_steps {recipe.warmup_steps} is longer than the run's {final.steps} steps{of}"
            )
        found.append(Training(trials=trials, final=final, flops_per_token=cost))
    return found


def _cut(recipe: Recipe, steps: int) -> Recipe:
    """The recipe for so many steps."""
    return recipe.model_copy(update={"tokens": steps * recipe.batch_tokens, "flops": None})


def _phase_steps(recipe: Recipe, shares: Sequence[float], step_flops: Sequence[float]) -> list[int]:
    """Steps of each phase: its share of the tokens, or of the FLOPs, of which a step of each phase costs its own.

    Phase p ends where the shares up to it do, to the nearest step; the last one ends with the first step that reaches
    the budget.
    """
    ends = list(accumulate(shares))
    if recipe.flops is None:
        return [last - first for first, last in pairwise([0, *(round(recipe.steps * end) for end in ends)])]
    steps: list[int] = []
    for end, cost in zip(ends, step_flops, strict=True):
        spent = sum(count * each for count, each in zip(steps, step_flops, strict=False))
        last = len(steps) == len(shares) - 1
        left = (recipe.flops * (1.0 if last else end) - spent) / cost
        steps.append(max(0, math.ceil(left) if last else round(left)))
    return steps


def _trials(where: str, recipe: Recipe, of: str) -> tuple[list[Recipe], Recipe]:
    """A trial of each rate, and what they leave of the recipe's tokens; the trials' warm-up is scaled to them."""
    grid = recipe.learning_rate
    assert isinstance(grid, RateGrid)
    steps = round(grid.trial_fraction * recipe.steps)
    left = recipe.steps - steps * len(grid.grid)
    if steps < 1 or left < 1:
        trials = f"{len(grid.grid)} trials of trial_fraction {grid.trial_fraction:g}, {steps} steps each"
        raise SpecError(f"{where}.learning_rate: {trials}, leave {left} of the run's {recipe.steps} steps{of}")
    final = _cut(recipe, left)
    warmup = {} if recipe.warmup_steps is None else {"warmup_steps": round(recipe.warmup_steps * steps / left)}
    trial = _cut(recipe, steps).model_copy(update=warmup)
    return [trial.model_copy(update={"learning_rate": rate}) for rate in grid.grid], final


def flops_per_token(recipe: Recipe, config: PretrainedConfig, plan: Plan | None) -> float:
    """FLOPs of training per token: the student's, and the teacher's forward pass where a loss needs it.

    `config` is the teacher's; without a plan it is the teacher that trains. Counted on the meta device, on what the
    plan builds: a method that moves ranks once it knows the weights (`refine`) may end a little off.
    """
    from harness.engine.flops import training_flops_per_token
    from harness.meta_models import meta_student, meta_teacher

    model = meta_student(config, plan) if plan else meta_teacher(config)
    teacher = meta_teacher(config) if recipe.losses.needs_teacher else None
    return training_flops_per_token(model, teacher, recipe.sequence_length)
