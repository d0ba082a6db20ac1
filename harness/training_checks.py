"""What would stop a training stage, found while planning: how its batch is shared, and what its losses compare.

Teachers and students are built on the meta device from the configuration and the method's plan, so that taps are
checked as at the start of training, by the same code, without a weight. What only weights tell (blocks that `refine`
chooses) is checked when the stage starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from harness.cells import CellPlan, SweepPlan
from harness.engine.shares import divisors
from harness.errors import SpecError
from harness.graph import Stage
from harness.meta_models import meta_student, meta_teacher
from harness.stage import StageFailure
from methods.interface import MethodError, Plan, Tap
from methods.recipe import FineTune, Losses
from tasks.interface import Classification

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def check_shares(plan: SweepPlan) -> None:
    """Raise SpecError when workers cannot share a global batch evenly, or cut their share into micro-batches."""
    for stage in training_stages(plan):
        rows, unit = batch_rows(stage)
        execution, where = stage.execution, f"resources.{plan.sweep.resources_of(stage.name)}"
        if rows % execution.workers:
            raise SpecError(
                f"{where}: {execution.workers} workers cannot share a global batch of {rows} {unit}; "
                f"nearest: {_near(execution.workers, rows)}"
            )
        share, micro = rows // execution.workers, execution.micro_batch
        if micro and share % micro:
            raise SpecError(
                f"{where}: micro_batch {micro} does not divide a worker's {share} {unit} of the global batch; "
                f"nearest: {_near(micro, share)}"
            )
        if execution.offload and not execution.zero_stage and stage.params["recipe"]["precision"] == "fp32":
            raise SpecError(f"{where}: offload moves what ZeRO partitions, and zero_stage is 0; nearest: zero_stage: 1")


def training_stages(plan: SweepPlan) -> list[Stage]:
    """The stages that train: of a teacher from scratch, of students, of classifiers."""
    return [stage for stage in plan.stages if "recipe" in stage.params]


def batch_rows(stage: Stage) -> tuple[int, str]:
    """Rows of a training stage's global batch, and what a row is."""
    recipe: Any = stage.params["recipe"]
    if "batch_tokens" in recipe:
        return recipe["batch_tokens"] // recipe["sequence_length"], "windows"
    return recipe["batch_examples"], "examples"


def _near(number: int, whole: int) -> str:
    """The divisors of `whole` next to `number`: `2 or 4`."""
    whole_parts = divisors(whole)
    below, above = [n for n in whole_parts if n < number][-1:], [n for n in whole_parts if n > number][:1]
    return " or ".join(map(str, below + above))


def check_comparisons(plan: SweepPlan) -> None:
    """Raise MethodError when a cell's losses compare what cannot be compared; each student is built once."""
    teacher: PreTrainedModel | None = None
    for cells in _by_student(plan.cells):
        cell = cells[0]
        taught = [each.recipe.losses for each in cells if each.recipe and each.recipe.losses.needs_teacher]
        tuned = [recipe.losses for recipe in _finetunes(plan) if recipe.losses.needs_teacher]
        if cell.contender.name == "identity" or not (taught or tuned):
            continue
        teacher = teacher or meta_teacher(plan.config)
        assert isinstance(cell.solved, Plan)
        for each in [phase.plan for phase in cell.phases] if taught else [cell.solved]:
            _check_student(cell, each, plan.config, teacher, taught, tuned)


def _by_student(cells: Sequence[CellPlan]) -> Iterator[list[CellPlan]]:
    """Cells that are not skipped, those of the same student together."""
    groups: dict[int, list[CellPlan]] = {}
    for cell in cells:
        if not cell.refusal:
            groups.setdefault(id(cell.solved), []).append(cell)
    yield from groups.values()


def _finetunes(plan: SweepPlan) -> list[FineTune]:
    found = [
        choice.finetune or plan.sweep.finetune
        for choice in plan.sweep.tasks
        if isinstance(plan.tasks[choice.task], Classification)
    ]
    return [recipe for recipe in found if recipe is not None]


def _check_student(
    cell: CellPlan,
    plan: Plan,
    config: PretrainedConfig,
    teacher: PreTrainedModel,
    taught: Sequence[Losses],
    tuned: Sequence[Losses],
) -> None:
    try:
        tapped = any(losses.taps for losses in (*taught, *tuned))
        taps = tuple(cell.contender.method.taps(config, plan)) if tapped else ()
        student = meta_student(config, plan)
        if taps:
            check_taps_on_meta(teacher, student, taps)
        if any(losses.taps for losses in tuned):
            _check_in_classifiers(teacher, student, taps)
        if any(losses.kd for losses in taught):
            _check_vocabularies(teacher, student)
    except (StageFailure, MethodError) as error:
        raise MethodError(f"methods: {cell.contender.title}: {error}") from error


def check_taps_on_meta(teacher: PreTrainedModel, student: PreTrainedModel, taps: Sequence[Tap]) -> None:
    """What an objective checks when it is made, on models without values.

    A layer that reads values cannot run here; its taps are checked when training starts.

    Raises:
        StageFailure: a tap names a module that is not there, or compares what differs in shape.
    """
    from harness.engine.objective import Objective
    from harness.engine.without_values import WithoutValues, reads_values

    try:
        with WithoutValues():
            Objective(student, teacher, Losses(taps=1.0), taps)
    except RuntimeError as error:
        if not reads_values(error):
            raise StageFailure(f"the student does not run: {str(error).splitlines()[0]}") from error


def _check_in_classifiers(teacher: PreTrainedModel, student: PreTrainedModel, taps: Iterable[Tap]) -> None:
    """A classifier has the language model's modules but its head."""
    for tap in taps:
        for side, model, path in (("teacher", teacher, tap.teacher), ("student", student, tap.student)):
            if path.partition(".")[0] != model.base_model_prefix:
                raise StageFailure(f"tap {tap.teacher} -> {tap.student}: the fine-tuned {side} has no module {path!r}")


def _check_vocabularies(teacher: PreTrainedModel, student: PreTrainedModel) -> None:
    from harness.engine.vocabulary import VocabularyLoss

    VocabularyLoss(student, teacher, Losses(kd=1.0))
