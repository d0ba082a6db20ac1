"""The stages of one fine-tuning: the training that counts, and before it a trial of each rate where there is a grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.execution_keys import split_deepspeed
from harness.graph import Stage
from harness.stage import Execution
from methods.recipe import FineTune, FineTuneGrid


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """A task that a model is fine-tuned for."""

    task: str
    target: str
    """`module:Class` of the task."""
    data: str
    """Fingerprint of its training and validation examples."""
    test: str | None
    """Fingerprint of its test sets, where those are predicted."""
    train_rows: int | None
    recipe: FineTune
    seed: int
    what: str
    """Of which model, for people."""
    keep_model: bool
    execution: Execution

    def stage(self, parents: Mapping[str, Stage]) -> Stage:
        """The training that counts; of a grid of rates it reads the trials and takes the best."""
        tried = {f"trial {number}": trial for number, trial in enumerate(self._trials(parents))}
        asked = {"test": self.test} if self.test else {}
        return self._stage("finetune", self.recipe, {**parents, **tried}, {"keep_model": self.keep_model} | asked)

    def _trials(self, parents: Mapping[str, Stage]) -> list[Stage]:
        """One per rate; a trial does not know of the other rates, so that another grid finds it made."""
        grid, epochs = self.recipe.learning_rate, self.recipe.epochs
        if not isinstance(grid, FineTuneGrid):
            return []
        held_out = {"held_out": grid.held_out} | ({"epochs": epochs} if self.recipe.warmup_steps is not None else {})
        shorter = self.recipe.model_copy(update={"epochs": grid.trial_epochs or epochs})
        trials = [shorter.model_copy(update={"learning_rate": rate}) for rate in grid.grid]
        return [self._stage("finetune_trial", trial, parents, held_out) for trial in trials]

    def _stage(self, module: str, recipe: FineTune, parents: Mapping[str, Stage], more: Mapping[str, Any]) -> Stage:
        params, execution = split_deepspeed(recipe, self.execution)
        asked = {"task": self.task, "target": self.target, "seed": self.seed, "train_rows": self.train_rows}
        rate = f" lr={recipe.learning_rate:g}" if isinstance(recipe.learning_rate, float) and "held_out" in more else ""
        return Stage(
            name="finetune",
            module=f"harness.stages.{module}",
            label=f"{self.task} {self.what}{rate} #{self.seed}",
            params={"recipe": params, **asked, **more},
            parents=parents,
            data=self.data,
            code=(self.target.partition(":")[0],),
            execution=execution,
        )
