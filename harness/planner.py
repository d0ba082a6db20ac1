"""From a sweep to its cells and the stages they need, decided before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.cells import CellPlan, Contender, SweepPlan
from harness.errors import SpecError
from harness.execution_keys import split_deepspeed
from harness.graph import Stage
from harness.identity import digest
from harness.provenance import hardware
from harness.spec import Sweep, TaskChoice
from harness.stage import Execution
from harness.teacher_config import (
    check_positions,
    check_teacher,
    teacher_config,
    teacher_fingerprint,
    teacher_places,
)
from methods import fields as method_fields
from methods import registry as method_registry
from methods.interface import Budget, Method, Plan, Refusal
from methods.recipe import FineTune, Optimisation, Recipe
from tasks import registry as task_registry
from tasks.interface import Classification

ROW_DIGITS = 8
NO_RECIPE = Refusal(reason="the method has no published recipe")


def plan_sweep(sweep: Sweep, mirror: Path | None) -> SweepPlan:
    """Resolve every name, solve every budget and build the graph; runs and writes nothing.

    Raises SpecError, MethodError or DataError, each one line, on anything that cannot be carried out.
    """
    return Planner(sweep, mirror).plan()


class Planner:
    """Builds the stages that cells share once each."""

    def __init__(self, sweep: Sweep, mirror: Path | None) -> None:
        self.sweep, self.mirror = sweep, mirror
        self.targets = {choice.task: task_registry.resolve(choice.task) for choice in sweep.tasks}
        self.tasks = {name: task_registry.load(target) for name, target in self.targets.items()}
        for choice in sweep.tasks:
            self._check(choice)
        if sweep.teacher.pretrain and sweep.teacher.pretrain.recipe.losses.needs_teacher:
            raise SpecError("teacher.pretrain.recipe.losses: kd and taps need a teacher; pretraining has none")
        self._fingerprints: dict[str, str] = {}
        self.config = teacher_config(sweep.teacher, mirror)
        if sweep.teacher.pretrain:
            check_positions("teacher.pretrain.recipe", sweep.teacher.pretrain.recipe, self.config)
        self.reference = self._contender("identity", method_registry.load("identity")())

    def _check(self, choice: TaskChoice) -> None:
        """Raise SpecError when a task lacks a setting that it needs, or has one that it would not use."""
        if isinstance(self.tasks[choice.task], Classification):
            if not (choice.finetune or self.sweep.finetune):
                raise SpecError(f"tasks: {choice.task} is fine-tuned: give `finetune` for the sweep or for the task")
            if choice.before_training:
                raise SpecError(f"tasks: {choice.task} is fine-tuned: `before_training` is for perplexity protocols")
        elif choice.finetune or choice.train_rows:
            unused = "finetune" if choice.finetune else "train_rows"
            raise SpecError(f"tasks: {choice.task} does not train: `{unused}` is for fine-tuned tasks")

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
        return SweepPlan(
            sweep=self.sweep,
            cells=cells,
            tasks=self.tasks,
            mirror=self.mirror,
            teacher_params=whole.size,
            settings={choice.task: self._settings(choice) for choice in self.sweep.tasks},
        )

    def _settings(self, choice: TaskChoice) -> str:
        recipe = choice.finetune or self.sweep.finetune
        if recipe is None or not isinstance(self.tasks[choice.task], Classification):
            return ""
        losses, identity = recipe.losses, split_deepspeed(recipe, Execution())[0]
        distilled = f"ILKD (kd {losses.kd:g}, taps {losses.taps:g})" if losses.needs_teacher else "no teacher"
        rows = f"{choice.train_rows} rows" if choice.train_rows else "all rows"
        return f"{recipe.epochs} epochs, {rows}, {distilled}, recipe {digest([identity, choice.train_rows], 8)}"

    def _contenders(self) -> Iterator[Contender]:
        for choice in self.sweep.methods:
            for method in method_fields.grid(choice.name, choice.fields):
                yield self._contender(choice.name, method)

    @staticmethod
    def _contender(name: str, method: Method) -> Contender:
        fields = method_fields.changed_fields(method)
        return Contender(name=name, target=method_registry.resolve(name), method=method, fields=fields)

    def _budgets(self, contender: Contender) -> list[Budget | None]:
        if not contender.method.budgeted:
            return [None]
        return [Budget(unit=choice.unit, value=choice.value) for choice in self.sweep.budgets]

    def _cells(self, contender: Contender, budget: Budget | None) -> Iterator[CellPlan]:
        solved = self._solve(contender, budget)
        for kind, recipe in self._recipes(contender):
            cell = solved if recipe or kind == "none" else NO_RECIPE
            for seed in self.sweep.seeds:
                yield CellPlan(
                    contender=contender,
                    budget=budget,
                    recipe_kind=kind,
                    recipe=recipe,
                    seed=seed,
                    row=self._row(contender, budget, kind, recipe),
                    solved=cell,
                    stages={} if isinstance(cell, Refusal) else self._stages(contender, budget, recipe, seed),
                )

    def _row(self, contender: Contender, budget: Budget | None, kind: str, recipe: Recipe | None) -> str:
        """What makes a line of the board: what is compressed, how, to what size, trained how, on what text."""
        teacher = self._teacher_stage
        row = {
            "teacher": [self.sweep.teacher.name, teacher.params, teacher.data],
            "corpus": self._corpus_stage.data if recipe or self.sweep.teacher.pretrain else None,
            "method": [contender.name, contender.identity, contender.method.fingerprint()],
            "budget": asdict(budget) if budget else None,
            "recipe": [kind, split_deepspeed(recipe, Execution())[0] if recipe else None],
        }
        return digest(row, ROW_DIGITS)

    def _solve(self, contender: Contender, budget: Budget | None) -> Plan | Refusal:
        if budget is not None and budget.unit not in contender.method.units:
            return Refusal(reason=f"{contender.name} cannot be budgeted in {budget.unit}")
        return contender.method.plan(self.config, budget)

    def _recipes(self, contender: Contender) -> Iterator[tuple[str, Recipe | None]]:
        if contender.name == self.reference.name:
            yield "none", None
            return
        for choice in self.sweep.recipes:
            recipe = contender.method.recipe() if choice.kind == "paper" else choice.shared
            if recipe:
                check_positions(f"recipes: {choice.kind}", recipe, self.config)
            yield choice.kind, recipe

    def _stages(
        self, contender: Contender, budget: Budget | None, recipe: Recipe | None, seed: int
    ) -> Mapping[str, Stage]:
        what = " ".join([contender.title, *([str(budget)] if budget else [])])
        compressed = self._compress(contender, budget, seed, what)
        final = self._distill(compressed, recipe, seed, what) if recipe else compressed
        found = {"compress": compressed} | ({"distill": final} if recipe else {})
        found["profile"] = self._profile(compressed, what)
        for choice in self.sweep.tasks:
            if isinstance(self.tasks[choice.task], Classification):
                found[choice.task] = self._finetune(final, choice, seed, what)
                continue
            found[choice.task] = self._evaluate(final, choice, what)
            if choice.before_training and recipe:
                found[f"{choice.task} before"] = self._evaluate(compressed, choice, f"{what} before training")
        return found

    @cached_property
    def _corpus_stage(self) -> Stage:
        assert self.sweep.corpus is not None
        corpus = asdict(self.sweep.corpus)
        directory = corpus.pop("directory")
        return Stage(
            name="corpus",
            module="harness.stages.corpus",
            label="corpus",
            params={"corpus": corpus},
            places={"directory": str(Path(directory).expanduser().absolute()) if directory else None},
            data=self.sweep.corpus.fingerprint(self.mirror),
            execution=self.sweep.execution("corpus"),
        )

    @cached_property
    def _tokenizer_stage(self) -> Stage:
        return Stage(
            name="tokenizer",
            module="harness.stages.tokenizer",
            label="tokenizer",
            params={"vocab_size": self.config.vocab_size},
            parents={"corpus": self._corpus_stage},
            execution=self.sweep.execution("tokenizer"),
        )

    @cached_property
    def _tokens_stage(self) -> Stage:
        source = self._tokenizer_stage if self.sweep.teacher.pretrain else self._teacher_stage
        return Stage(
            name="tokens",
            module="harness.stages.tokens",
            label="tokens",
            parents={"corpus": self._corpus_stage, "tokenizer": source},
            execution=self.sweep.execution("tokens"),
        )

    @cached_property
    def _teacher_stage(self) -> Stage:
        teacher = self.sweep.teacher
        if teacher.pretrain is None:
            return Stage(
                name="teacher",
                module="harness.stages.import_teacher",
                label=f"teacher {teacher.name}",
                places=teacher_places(teacher),
                data=teacher_fingerprint(teacher, self.mirror),
                libraries=("gguf",) if teacher.gguf else (),
                execution=self.sweep.execution("teacher"),
            )
        params, execution = self._trained("teacher", teacher.pretrain.recipe)
        return Stage(
            name="teacher",
            module="harness.stages.pretrain",
            label=f"teacher {teacher.name}",
            params=teacher.pretrain.model_dump(exclude={"recipe"}) | {"recipe": params},
            parents={"tokens": self._tokens_stage, "tokenizer": self._tokenizer_stage},
            execution=execution,
        )

    def _trained(self, stage: str, recipe: Optimisation) -> tuple[Mapping[str, Any], Any]:
        """A recipe's identity, and the stage's execution with the raw DeepSpeed keys that are not part of it."""
        return split_deepspeed(recipe, self.sweep.execution(stage))

    def _compress(self, contender: Contender, budget: Budget | None, seed: int, what: str) -> Stage:
        return Stage(
            name="compress",
            module="harness.stages.compress",
            label=f"compress {what}",
            params={
                "target": contender.target,
                "fields": contender.identity,
                "budget": asdict(budget) if budget else None,
                "seed": seed if contender.method.stochastic else 0,
            },
            places={"places": contender.places},
            parents={"teacher": self._teacher_stage},
            data=contender.method.fingerprint(),
            code=(contender.target.partition(":")[0],),
            execution=self.sweep.execution("compress"),
        )

    def _distill(self, compressed: Stage, recipe: Recipe, seed: int, what: str) -> Stage:
        params, execution = self._trained("distill", recipe)
        return Stage(
            name="distill",
            module="harness.stages.distill",
            label=f"distill {what} #{seed}",
            params={"recipe": params, "seed": seed},
            parents={"student": compressed, "teacher": self._teacher_stage, "tokens": self._tokens_stage},
            execution=execution,
        )

    def _evaluate(self, model: Stage, choice: TaskChoice, what: str) -> Stage:
        target = self.targets[choice.task]
        return Stage(
            name="evaluate",
            module="harness.stages.evaluate",
            label=f"{choice.task} {what}",
            params={"task": choice.task, "target": target},
            parents={"model": model},
            data=self._data(choice.task),
            code=(target.partition(":")[0],),
            execution=self.sweep.execution("evaluate"),
        )

    def _data(self, task: str) -> str:
        """A task's fingerprint; its files are read once, however many stages measure by it."""
        if task not in self._fingerprints:
            self._fingerprints[task] = self.tasks[task].fingerprint(self.mirror)
        return self._fingerprints[task]

    def _finetune(self, model: Stage, choice: TaskChoice, seed: int, what: str) -> Stage:
        recipe = choice.finetune or self.sweep.finetune
        assert recipe is not None
        reference = self._compress(self.reference, None, seed, self.reference.name)
        is_teacher = model.key == reference.key
        parents = {"model": model}
        if recipe.losses.needs_teacher and not is_teacher:
            parents["teacher"] = self._finetune(reference, choice, seed, self.reference.name)
        if is_teacher:
            recipe = recipe.model_copy(update={"losses": type(recipe.losses)()})
        return self._finetune_stage(parents, choice, recipe, seed, what, keep_model=is_teacher)

    def _finetune_stage(
        self, parents: Mapping[str, Stage], choice: TaskChoice, recipe: FineTune, seed: int, what: str, keep_model: bool
    ) -> Stage:
        target = self.targets[choice.task]
        params, execution = self._trained("finetune", recipe)
        settings = {"recipe": params, "seed": seed, "train_rows": choice.train_rows, "keep_model": keep_model}
        return Stage(
            name="finetune",
            module="harness.stages.finetune",
            label=f"{choice.task} {what} #{seed}",
            params={"task": choice.task, "target": target} | settings,
            parents=parents,
            data=self._data(choice.task),
            code=(target.partition(":")[0],),
            execution=execution,
        )

    def _profile(self, compressed: Stage, what: str) -> Stage:
        return Stage(
            name="profile",
            module="harness.stages.profile",
            label=f"profile {what}",
            params={"hardware": hardware(), "cpus": self.sweep.execution("profile").cpus},
            parents={"model": compressed},
            execution=replace(self.sweep.execution("profile"), alone=True),
        )


def check_sources(plan: SweepPlan) -> None:
    """Raise one line naming what cannot be had, before a run starts: data sets, corpus, the teacher's weights."""
    for task in plan.tasks.values():
        task.check(plan.mirror)
    if plan.sweep.corpus:
        plan.sweep.corpus.check(plan.mirror)
    check_teacher(plan.sweep.teacher, plan.mirror)
