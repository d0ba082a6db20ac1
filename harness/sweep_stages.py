"""The stages of a sweep: each node of the graph is built here, once, and shared by the cells that need it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cells import Contender
from harness.execution_keys import split_deepspeed
from harness.finetune_stages import FineTuning
from harness.graph import Stage
from harness.provenance import hardware
from harness.spec import Sweep, TaskChoice
from harness.step_budget import Training, flops_per_token, trainings
from harness.teacher_config import teacher_fingerprint, teacher_places
from methods.interface import Budget, Phase, Statistic
from methods.recipe import Optimiser, Recipe
from results.record import ControlKind
from tasks.hub import combined
from tasks.interface import Classification, Task

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class SweepStages:
    """Builds stages for the cells of one sweep."""

    def __init__(
        self,
        sweep: Sweep,
        mirror: Path | None,
        config: PretrainedConfig,
        tasks: Mapping[str, Task],
        targets: Mapping[str, str],
        reference: Contender,
    ) -> None:
        self.sweep, self.mirror, self.config = sweep, mirror, config
        self.tasks, self.targets, self.reference = tasks, targets, reference
        self._fingerprints: dict[str, str] = {}

    def of_cell(
        self,
        contender: Contender,
        budget: Budget | None,
        trainings: Sequence[Training],
        seed: int,
        control: ControlKind | None = None,
    ) -> Mapping[str, Stage]:
        """Label -> stage of what the cell's record reads; the student as compressed and, if it trains, as trained.

        A control without the teacher differs in the trainings that it is given; one from random factors has the student
        drawn anew each time something was compressed. Speed is that of the shapes, which a control has in common.
        """
        what = " ".join([_title(contender, budget), *([control] if control else [])])
        drawn = control == "random_init"
        compressed = self._student(contender, budget, seed, what, drawn=drawn)
        final = compressed
        if len(trainings) == 1:
            final = self._distill(compressed, trainings[0], seed, what)
        elif trainings:
            final = self._staged(contender, budget, trainings, seed, what, drawn=drawn)
        found = {"compress": compressed} | ({"distill": final} if trainings else {})
        found["profile"] = self._profile(self._compress(contender, budget, seed, what), what)
        for choice in self.sweep.tasks:
            if isinstance(self.tasks[choice.task], Classification):
                found[choice.task] = self._finetune(final, choice, seed, what)
                continue
            found[choice.task] = self._evaluate(final, choice, what)
            if choice.before_training and trainings:
                found[f"{choice.task} before"] = self._evaluate(compressed, choice, f"{what} before training")
        return found

    def trainings(
        self, where: str, contender: Contender, budget: Budget | None, recipe: Recipe, phases: Sequence[Phase]
    ) -> Sequence[Training]:
        """What each phase of a student trains for under a recipe that stands at `where` in the sweep."""

        def flops(phase: int) -> float:
            return flops_per_token(recipe, self.config, phases[phase].plan)

        return trainings(where, _title(contender, budget), recipe, [phase.share for phase in phases], flops)

    def _staged(
        self,
        contender: Contender,
        budget: Budget | None,
        trainings: Sequence[Training],
        seed: int,
        what: str,
        *,
        drawn: bool,
    ) -> Stage:
        """Compress a part and train, phase by phase, each from what the one before left and on the text after it."""
        trained: Stage | None = None
        first = 0
        for number, training in enumerate(trainings):
            part = f"{what} phase {number + 1}"
            compressed = self._student(contender, budget, seed, part, drawn=drawn, phase=number, student=trained)
            trained = self._distill(compressed, training, seed, part, first_step=first)
            first += training.final.steps
        assert trained is not None, f"{contender.name} has no phases"
        return trained

    @cached_property
    def corpus(self) -> Stage:
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
    def tokenizer(self) -> Stage:
        return Stage(
            name="tokenizer",
            module="harness.stages.tokenizer",
            label="tokenizer",
            params={"vocab_size": self.config.vocab_size},
            parents={"corpus": self.corpus},
            execution=self.sweep.execution("tokenizer"),
        )

    @cached_property
    def tokens(self) -> Stage:
        source = self.tokenizer if self.sweep.teacher.pretrain else self.teacher
        return Stage(
            name="tokens",
            module="harness.stages.tokens",
            label="tokens",
            parents={"corpus": self.corpus, "tokenizer": source},
            execution=self.sweep.execution("tokens"),
        )

    @cached_property
    def teacher(self) -> Stage:
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
        asked = teacher.pretrain.recipe
        (training,) = trainings(
            "teacher.pretrain.recipe", teacher.name, asked, [1.0], lambda _: flops_per_token(asked, self.config, None)
        )
        params, execution = self._trained("teacher", training.final)
        return Stage(
            name="teacher",
            module="harness.stages.pretrain",
            label=f"teacher {teacher.name}",
            params=teacher.pretrain.model_dump(exclude={"recipe"}) | {"recipe": params},
            parents={"tokens": self.tokens, "tokenizer": self.tokenizer},
            execution=execution,
            flops_per_token=training.flops_per_token,
        )

    def _trained(self, stage: str, recipe: Optimiser) -> tuple[Mapping[str, Any], Any]:
        """A recipe's identity, and the stage's execution with the raw DeepSpeed keys that are not part of it."""
        return split_deepspeed(recipe, self.sweep.execution(stage))

    def _student(
        self,
        contender: Contender,
        budget: Budget | None,
        seed: int,
        what: str,
        *,
        drawn: bool,
        phase: int | None = None,
        student: Stage | None = None,
    ) -> Stage:
        """The student as compressed; `drawn`: with random factors in place of those."""
        compressed = self._compress(contender, budget, seed, what, phase=phase, student=student)
        if not drawn:
            return compressed
        before = {"student": student} if student else {}
        return Stage(
            name="compress",
            module="harness.stages.redraw",
            label=f"redraw {what} #{seed}",
            params={"seed": seed} | ({} if phase is None else {"phase": phase}),
            parents={"teacher": self.teacher, "compressed": compressed} | before,
            execution=self.sweep.execution("compress"),
        )

    def _compress(
        self,
        contender: Contender,
        budget: Budget | None,
        seed: int,
        what: str,
        *,
        phase: int | None = None,
        student: Stage | None = None,
    ) -> Stage:
        """The student from the teacher at once, or one phase of it from the student that the phase before left."""
        params = {
            "target": contender.target,
            "fields": contender.identity,
            "budget": asdict(budget) if budget else None,
            "seed": seed if contender.method.stochastic else 0,
        }
        statistics = {name: self._calibrate(name) for name in sorted(contender.method.needs)}
        return Stage(
            name="compress",
            module="harness.stages.compress",
            label=f"compress {what}" + (f" #{seed}" if student else ""),
            params=params if phase is None else params | {"phase": phase},
            places={"places": contender.places},
            parents={"teacher": self.teacher} | ({"student": student} if student else {}) | statistics,
            data=contender.method.fingerprint(),
            code=(contender.target.partition(":")[0],),
            execution=self.sweep.execution("compress"),
        )

    def _calibrate(self, statistic: Statistic) -> Stage:
        """What the methods that need `statistic` share."""
        return Stage(
            name="calibrate",
            module="harness.stages.calibrate",
            label=f"calibrate {statistic}",
            params={"statistic": statistic, "calibration": self.calibration},
            parents={"teacher": self.teacher, "tokens": self.tokens},
            execution=self.sweep.execution("calibrate"),
        )

    @cached_property
    def calibration(self) -> Mapping[str, int]:
        """How much training text statistics are measured on, every number filled in."""
        given = self.sweep.calibration
        length = given.sequence_length or min(1024, self.config.max_position_embeddings)
        return {"sequences": given.sequences, "sequence_length": length, "seed": given.seed}

    def _distill(self, compressed: Stage, training: Training, seed: int, what: str, *, first_step: int = 0) -> Stage:
        """The training that counts; where there are trials of rates, it reads them and takes the best."""
        trials = [
            self._train("tune", compressed, training, trial, seed, f"{what} lr={trial.learning_rate:g}", first_step)
            for trial in training.trials
        ]
        tried = {f"trial {number}": trial for number, trial in enumerate(trials)}
        return self._train("distill", compressed, training, training.final, seed, what, first_step, tried)

    def _train(
        self,
        name: str,
        compressed: Stage,
        training: Training,
        recipe: Recipe,
        seed: int,
        what: str,
        first_step: int,
        trials: Mapping[str, Stage] | None = None,
    ) -> Stage:
        params, execution = self._trained(name, recipe)
        later = {"first_step": first_step} if first_step else {}
        return Stage(
            name=name,
            module=f"harness.stages.{name}",
            label=f"{name} {what} #{seed}",
            params={"recipe": params, "seed": seed} | later,
            parents={"student": compressed, "teacher": self.teacher, "tokens": self.tokens} | dict(trials or {}),
            execution=execution,
            flops_per_token=training.flops_per_token,
        )

    def _evaluate(self, model: Stage, choice: TaskChoice, what: str) -> Stage:
        target, fields = self.targets[choice.task], self.tasks[choice.task].fields(self.mirror)
        return Stage(
            name="evaluate",
            module="harness.stages.evaluate",
            label=f"{choice.task} {what}",
            params={"task": choice.task, "target": target} | ({"fields": fields} if fields else {}),
            places={"text": str(Path(choice.text).expanduser().absolute())} if choice.text else {},
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
        tuning = FineTuning(
            task=choice.task,
            target=self.targets[choice.task],
            data=self._data(choice.task),
            test=self._test_data(choice) if choice.predict_test else None,
            train_rows=choice.train_rows,
            recipe=recipe,
            seed=seed,
            what=what,
            keep_model=is_teacher,
            execution=self.sweep.execution("finetune"),
        )
        return tuning.stage(parents)

    def _test_data(self, choice: TaskChoice) -> str:
        task = self.tasks[choice.task]
        assert isinstance(task, Classification)
        return combined(texts.fingerprint(self.mirror) for texts in task.test_sets().values())

    def _profile(self, compressed: Stage, what: str) -> Stage:
        execution = self.sweep.execution("profile")
        return Stage(
            name="profile",
            module="harness.stages.profile",
            label=f"profile {what}",
            params={"hardware": hardware(), "cpus": execution.cpus, "gpus": execution.gpus},
            parents={"model": compressed},
            execution=replace(execution, alone=True),
        )


def _title(contender: Contender, budget: Budget | None) -> str:
    """`svd matrices=ffn params=0.66`."""
    return " ".join([contender.title, *([str(budget)] if budget else [])])
