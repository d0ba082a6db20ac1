"""From a sweep to its cells and the stages they need, decided before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from harness import controls
from harness.cells import CellPlan, Contender, SweepPlan
from harness.deepspeed_keys import check_deepspeed
from harness.engine.held_out import FEWEST_EXAMPLES
from harness.errors import SpecError
from harness.execution_keys import split_deepspeed
from harness.identity import digest
from harness.spec import Sweep, TaskChoice
from harness.stage import Execution
from harness.step_budget import Training
from harness.sweep_stages import SweepStages
from harness.teacher_config import check_positions, check_teacher, teacher_config
from harness.training_checks import check_comparisons, check_shares
from methods import fields as method_fields
from methods import registry as method_registry
from methods.interface import Budget, Method, MethodError, Plan, Refusal
from methods.recipe import Recipe
from results.record import Control, ControlKind
from tasks import registry as task_registry
from tasks.interface import Classification
from tasks.local import OfLocalText

ROW_DIGITS = 8
NO_RECIPE = Refusal(reason="the method has no published recipe")


def plan_sweep(sweep: Sweep, mirror: Path | None) -> SweepPlan:
    """Resolve every name, solve every budget and build the graph; runs and writes nothing.

    Raises SpecError, MethodError or DataError, each one line, on anything that cannot be carried out.
    """
    return Planner(sweep, mirror).plan()


class Planner:
    """Resolves names, solves budgets and gives each cell its row and its stages."""

    def __init__(self, sweep: Sweep, mirror: Path | None) -> None:
        sweep = sweep.model_copy(update={"tasks": named_tasks(sweep.tasks)})
        self.sweep, self.mirror = sweep, mirror
        self.targets = {choice.task: task_registry.resolve(choice.task) for choice in sweep.tasks}
        self.tasks = {name: task_registry.load(name) for name in self.targets}
        self.config = teacher_config(sweep.teacher, mirror)
        for choice in sweep.tasks:
            self._check(choice)
            self._read(choice)
        if sweep.teacher.pretrain:
            self._check_pretraining(sweep.teacher.pretrain.recipe)
        length, positions = sweep.calibration.sequence_length, self.config.max_position_embeddings
        if length and length > positions:
            raise SpecError(f"calibration: sequence_length {length} is more than the {positions} positions")
        self.reference = self._contender("identity", method_registry.load("identity")())
        self.stages = SweepStages(sweep, mirror, self.config, self.tasks, self.targets, self.reference)

    def _check_pretraining(self, recipe: Recipe) -> None:
        """Raise SpecError on what a teacher cannot be trained by."""
        where = "teacher.pretrain.recipe"
        if recipe.losses.needs_teacher:
            raise SpecError(f"{where}.losses: kd and taps need a teacher; pretraining has none")
        if recipe.rates:
            raise SpecError(f"{where}.learning_rate: one number; a grid of rates is for a sweep's `recipes`")
        check_positions(where, recipe, self.config)
        check_deepspeed(where, recipe)

    def _check(self, choice: TaskChoice) -> None:
        """Raise SpecError when a task lacks a setting that it needs, or has one that it would not use."""
        task = self.tasks[choice.task]
        if isinstance(task, Classification):
            if not (choice.finetune or self.sweep.finetune):
                raise SpecError(f"tasks: {choice.task} is fine-tuned: give `finetune` for the sweep or for the task")
            if choice.before_training:
                raise SpecError(f"tasks: {choice.task} is fine-tuned: `before_training` is for perplexity protocols")
            if choice.predict_test and not task.test_sets():
                raise SpecError(f"tasks: {choice.task} has no test sets: `predict_test` is for tasks that do")
            self._check_finetuning(choice, task.train_examples)
        elif unused := [name for name in ("finetune", "train_rows", "predict_test") if getattr(choice, name)]:
            raise SpecError(f"tasks: {choice.task} does not train: `{unused[0]}` is for fine-tuned tasks")

    def _read(self, choice: TaskChoice) -> None:
        """Give a protocol of a local text its text; SpecError where one is missing or of no use."""
        task = self.tasks[choice.task]
        if isinstance(task, OfLocalText) and choice.text:
            self.tasks[choice.task] = task.reading(Path(choice.text))
        elif isinstance(task, OfLocalText):
            raise SpecError(f"tasks: {choice.task} measures a text of yours: give `text: PATH`")
        elif choice.text:
            raise SpecError(f"tasks: {choice.task} has its own text: `text` is for local.* protocols")

    def _check_finetuning(self, choice: TaskChoice, examples: int | None) -> None:
        """Raise SpecError on raw keys that contradict the recipe, texts longer than the context, or too few rows."""
        where = f"tasks: {choice.task}: finetune" if choice.finetune else "finetune"
        recipe = choice.finetune or self.sweep.finetune
        assert recipe is not None
        check_deepspeed(where, recipe)
        if recipe.max_length > (positions := self.config.max_position_embeddings):
            raise SpecError(f"{where}: max_length {recipe.max_length} is more than the {positions} positions")
        rows = min((n for n in (choice.train_rows, examples) if n), default=None)
        if rows and recipe.rates and rows < 2 * FEWEST_EXAMPLES:
            least = f"holding {FEWEST_EXAMPLES} out takes {2 * FEWEST_EXAMPLES}"
            raise SpecError(f"{where}.learning_rate.grid: {choice.task} has {rows} training rows; {least}")
        steps = recipe.epochs * -(-rows // recipe.batch_examples) if rows else None
        if steps and (recipe.warmup_steps or 0) > steps:
            raise SpecError(
                f"{where}: warmup_steps {recipe.warmup_steps} is longer than the {steps} steps of {choice.task}"
            )

    def plan(self) -> SweepPlan:
        cells = [
            cell
            for contender in self._contenders()
            for budget in self._budgets(contender)
            for cell in self._cells(contender, budget)
        ]
        seen: set[tuple[str, int]] = set()
        for cell in cells:
            if (cell.row, cell.seed) in seen:
                raise SpecError(f"methods: {cell.name} is there twice")
            seen.add((cell.row, cell.seed))
        whole = self.reference.method.plan(self.config, None)
        assert isinstance(whole, Plan), "the identity never refuses"
        plan = SweepPlan(
            sweep=self.sweep,
            cells=cells,
            tasks=self.tasks,
            mirror=self.mirror,
            teacher_params=whole.size,
            settings={choice.task: self._settings(choice) for choice in self.sweep.tasks},
            config=self.config,
        )
        check_shares(plan)
        check_comparisons(plan)
        return plan

    def _settings(self, choice: TaskChoice) -> str:
        recipe = choice.finetune or self.sweep.finetune
        if recipe is None or not isinstance(self.tasks[choice.task], Classification):
            return ""
        losses, identity = recipe.losses, split_deepspeed(recipe, Execution())[0]
        distilled = f"ILKD (kd {losses.kd:g}, taps {losses.taps:g})" if losses.needs_teacher else "no teacher"
        rows = f"{choice.train_rows} rows" if choice.train_rows else "all rows"
        trained = [f"{recipe.epochs} epochs", rows, *([f"best of {len(recipe.rates)} rates"] if recipe.rates else [])]
        return ", ".join([*trained, distilled, f"recipe {digest([identity, choice.train_rows], 8)}"])

    def _contenders(self) -> Iterator[Contender]:
        for choice in self.sweep.methods:
            for method in method_fields.grid(choice.name, choice.fields):
                yield self._contender(choice.name, method)

    @staticmethod
    def _contender(name: str, method: Method) -> Contender:
        """Its fields as the sweep writes them; the method itself with its preset filled in."""
        fields, settled = method_fields.changed_fields(method), method_fields.settle(method)
        return Contender(name=name, target=method_registry.resolve(name), method=settled, fields=fields)

    def _budgets(self, contender: Contender) -> list[Budget | None]:
        if not contender.method.budgeted:
            return [None]
        return [Budget(unit=choice.unit, value=choice.value) for choice in self.sweep.budgets]

    def _cells(self, contender: Contender, budget: Budget | None) -> Iterator[CellPlan]:
        solved = self._solve(contender, budget)
        phases = contender.method.phases(self.config, solved) if isinstance(solved, Plan) else ()
        for where, kind, recipe in self._recipes(contender):
            cell = solved if recipe or kind == "none" else NO_RECIPE
            row = self._row(contender, budget, kind, recipe)
            trainings: Sequence[Training] = ()
            if recipe and isinstance(cell, Plan):
                trainings = self.stages.trainings(where, contender, budget, recipe, phases)
            for seed in self.sweep.seeds:
                yield CellPlan(
                    contender=contender,
                    budget=budget,
                    recipe_kind=kind,
                    recipe=recipe,
                    seed=seed,
                    row=row,
                    solved=cell,
                    phases=() if isinstance(cell, Refusal) else phases,
                    stages={} if isinstance(cell, Refusal) else self.stages.of_cell(contender, budget, trainings, seed),
                )
            if recipe and isinstance(cell, Plan):
                yield from self._twins(contender, budget, kind, recipe, cell, row, trainings)

    def _twins(
        self,
        contender: Contender,
        budget: Budget | None,
        kind: str,
        recipe: Recipe,
        plan: Plan,
        row: str,
        trainings: Sequence[Training],
    ) -> Iterator[CellPlan]:
        """The cells that control for the teacher's terms and for the decomposition, beside the row's own."""
        phases = contender.method.phases(self.config, plan)
        for control in self.sweep.controls:
            refusal = controls.refusal(control, contender.method, self.config, plan, recipe)
            twins = [controls.training_of(control, training) for training in trainings]
            for seed in self.sweep.seeds:
                yield CellPlan(
                    contender=contender,
                    budget=budget,
                    recipe_kind=kind,
                    recipe=controls.recipe_of(control, recipe),
                    seed=seed,
                    row=self._row(contender, budget, kind, recipe, control),
                    solved=refusal or plan,
                    control=Control(kind=control, of=row),
                    phases=() if refusal else phases,
                    stages={} if refusal else self.stages.of_cell(contender, budget, twins, seed, control),
                )

    def _row(
        self,
        contender: Contender,
        budget: Budget | None,
        kind: str,
        recipe: Recipe | None,
        control: ControlKind | None = None,
    ) -> str:
        """What makes a line of the board: what is compressed, how, to what size, trained how, on what text.

        A control's is that of its row and what it leaves out.
        """
        teacher, method = self.stages.teacher, [contender.name, contender.identity, contender.method.fingerprint()]
        reads_text = recipe or self.sweep.teacher.pretrain or contender.method.needs
        row = {
            "teacher": [self.sweep.teacher.name, teacher.params, teacher.data],
            "corpus": self.stages.corpus.data if reads_text else None,
            "method": [*method, self.stages.calibration] if contender.method.needs else method,
            "budget": asdict(budget) if budget else None,
            "recipe": [kind, split_deepspeed(recipe, Execution())[0] if recipe else None],
        }
        return digest(row | ({"control": control} if control else {}), ROW_DIGITS)

    def _solve(self, contender: Contender, budget: Budget | None) -> Plan | Refusal:
        if budget is not None and budget.unit not in contender.method.units:
            return Refusal(reason=f"{contender.name} cannot be budgeted in {budget.unit}")
        if contender.method.needs and self.sweep.corpus is None:
            raise SpecError(f"corpus: needed, because {contender.name} is calibrated on training text")
        with _naming(contender.name):
            return contender.method.plan(self.config, budget)

    def _recipes(self, contender: Contender) -> Iterator[tuple[str, str, Recipe | None]]:
        """Where each recipe stands in the sweep, its kind, and what it is for this method."""
        if contender.name == self.reference.name:
            yield "", "none", None
            return
        for place, choice in enumerate(self.sweep.recipes):
            recipe, where = contender.method.recipe() if choice.kind == "paper" else choice.shared, f"recipes.{place}"
            if recipe:
                check_positions(f"recipes: {choice.kind}", recipe, self.config)
                check_deepspeed(where, recipe)
            yield where, choice.kind, recipe


def named_tasks(choices: Sequence[TaskChoice]) -> list[TaskChoice]:
    """The tasks by their full names: lm-eval's tags and groups are several; SpecError when one is there twice."""
    found: dict[str, TaskChoice] = {}
    for choice in choices:
        for name in task_registry.expand(choice.task, choice.num_fewshot):
            if name in found:
                raise SpecError(f"tasks: {name} is there twice")
            found[name] = choice.model_copy(update={"task": name, "num_fewshot": None})
    return list(found.values())


@contextmanager
def _naming(method: str) -> Iterator[None]:
    """Say which of the sweep's methods a MethodError is about."""
    try:
        yield
    except MethodError as error:
        raise MethodError(f"{method}: {error}") from None


def check_sources(plan: SweepPlan) -> None:
    """Raise one line naming what cannot be had, before a run starts: data sets, corpus, the teacher's weights."""
    for choice in plan.sweep.tasks:
        task = plan.tasks[choice.task]
        task.check(plan.mirror)
        for texts in task.test_sets().values() if choice.predict_test and isinstance(task, Classification) else ():
            texts.check(plan.mirror)
    if plan.sweep.corpus:
        plan.sweep.corpus.check(plan.mirror)
    check_teacher(plan.sweep.teacher, plan.mirror)
