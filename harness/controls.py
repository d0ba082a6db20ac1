"""Controls: twins of a cell that show what its teacher and its decomposition contributed.

`no_teacher` trains the same student on the same tokens with cross-entropy alone. `random_init` trains a student of the
same shapes by the same recipe, with what the method took from the teacher's weights drawn at random
(`methods.random_factors`). Whether a cell has such a twin follows from its plan and its recipe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.step_budget import Training
from methods.interface import Method, Plan, Refusal
from methods.recipe import Losses, Recipe
from results.record import ControlKind

if TYPE_CHECKING:
    from transformers import PretrainedConfig

ITS_OWN = Refusal(reason="no term of the recipe compares with a teacher: the row is its own control")
NOT_THE_TEACHERS = Refusal(reason="the method takes no weights from the teacher: it has nothing to draw anew")
NOTHING_REPLACED = Refusal(reason="the plan keeps the teacher as it is: there is nothing to draw anew")


def recipe_of(control: ControlKind, recipe: Recipe) -> Recipe:
    """How a control is trained: without a teacher loss = CE, all else equal; from random factors by the same recipe.

    The weight of CE is 1 whatever it was beside the teacher's terms. AdamW's steps do not depend on the scale of the
    loss but through epsilon and the clipping of the gradient's norm, and these then act as in training by CE.
    """
    return recipe.model_copy(update={"losses": Losses(ce=1.0)}) if control == "no_teacher" else recipe


def training_of(control: ControlKind, training: Training) -> Training:
    """As many steps as the row's own, also where those follow from FLOPs; a grid of rates is tried anew."""
    return Training(
        trials=[recipe_of(control, trial) for trial in training.trials],
        final=recipe_of(control, training.final),
        flops_per_token=None if control == "no_teacher" else training.flops_per_token,
    )


def refusal(
    control: ControlKind, method: Method, config: PretrainedConfig, plan: Plan, recipe: Recipe
) -> Refusal | None:
    """Why a cell has no such twin; None when it has one."""
    if control == "no_teacher":
        return None if _has_teacher(recipe.losses, method, config, plan) else ITS_OWN
    if not method.keeps_weights:
        return NOT_THE_TEACHERS
    return None if plan.surgery or plan.config_changes else NOTHING_REPLACED


def _has_teacher(losses: Losses, method: Method, config: PretrainedConfig, plan: Plan) -> bool:
    """A term that is there: taps count only where the method declares some."""
    without_taps = losses.model_copy(update={"taps": 0.0})
    return without_taps.needs_teacher or (losses.needs_teacher and bool(method.taps(config, plan)))
