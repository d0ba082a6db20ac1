"""Steps from tokens and FLOPs, and recipes that cannot be: refused before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from micro_sweep import recipe, sweep, weighin, write

from harness.deepspeed_keys import KNOWN_KEYS, RECIPE_KEYS
from harness.planner import plan_sweep
from harness.spec import load_sweep
from harness.step_budget import trainings
from methods.recipe import Recipe

GRID = {"grid": [1e-3, 1e-2], "trial_fraction": 0.25}
SHARES = (0.2, 0.5, 0.3)
COSTS = (30.0, 20.0, 10.0)


def asked(**changes: Any) -> Recipe:
    return Recipe.model_validate({k: v for k, v in recipe(**changes).items() if v is not None})


@pytest.mark.parametrize("steps", [7, 100, 1001])
def test_flops_are_shared_out_over_phases_of_unequal_cost(steps: int) -> None:
    flops = float(steps * 128 * 20)
    found = trainings("here", "it", asked(tokens=None, flops=flops), SHARES, COSTS.__getitem__)
    spent = [each.final.steps * 128 * cost for each, cost in zip(found, COSTS, strict=True)]
    assert 0 <= sum(spent) - flops < 128 * COSTS[-1]
    for number, (share, cost) in enumerate(zip(SHARES, COSTS, strict=True)):
        assert abs(spent[number] - share * flops) <= 128 * (cost + (COSTS[number - 1] if number else 0)) / 2 + 128 * 10
    assert [each.flops_per_token for each in found] == list(COSTS)


def test_a_cheaper_student_sees_more_tokens() -> None:
    dear, cheap = (
        trainings("here", "it", asked(tokens=None, flops=128e3), (1.0,), lambda _, cost=cost: cost)[0].final.tokens
        for cost in (100.0, 50.0)
    )
    assert (dear, cheap) == (128 * 10, 128 * 20)


def test_every_trial_gets_as_much_and_the_training_the_rest() -> None:
    (found,) = trainings("here", "it", asked(tokens=2500, learning_rate=GRID), (1.0,), lambda _: 0.0)
    assert [(trial.learning_rate, trial.tokens) for trial in found.trials] == [(1e-3, 640), (1e-2, 640)]
    assert found.final.tokens == 128 * (20 - 5 - 5)
    assert found.final.rates == [1e-3, 1e-2]


def test_one_rate_in_tokens_is_the_recipe_as_it_stands() -> None:
    """What has no grid and no FLOPs keeps its identity: no key but those it had."""
    plain = asked(tokens=500)
    (found,) = trainings("here", "it", plain, (1.0,), lambda _: 0.0)
    assert found.final == plain
    assert set(plain.model_dump()) == {
        "tokens", "batch_tokens", "sequence_length", "learning_rate", "losses", "schedule", "warmup_fraction",
        "final_fraction", "weight_decay", "beta1", "beta2", "epsilon", "gradient_clipping", "dropout", "precision",
        "deepspeed",
    }  # fmt: skip


def test_the_order_of_a_grid_is_no_part_of_a_row(planned: Any) -> None:
    rows = {
        cell.row
        for grid in ([1e-3, 1e-2], [1e-2, 1e-3])
        for cell in planned(recipes=[recipe(learning_rate={"grid": grid, "trial_fraction": 0.25})]).cells
    }
    assert len(rows) == 2


def test_trials_run_where_the_training_runs_unless_told_otherwise(planned: Any) -> None:
    tuned = {"recipes": [recipe(learning_rate=GRID)]}
    for resources, expected in (
        ({"default": {"cpus": 3}}, 3),
        ({"default": {"cpus": 3}, "distill": {"cpus": 2}}, 2),
        ({"distill": {"cpus": 2}, "tune": {"cpus": 1}}, 1),
    ):
        stages = planned(resources=resources, **tuned).stages
        assert {stage.execution.cpus for stage in stages if stage.name == "tune"} == {expected}


@pytest.fixture
def planned(plugin: Path, corpus: Path, tmp_path: Path) -> Callable[..., Any]:
    def plan(**changes: Any) -> Any:
        return plan_sweep(load_sweep(write(tmp_path / "sweep.yaml", sweep(corpus, **changes))), None)

    return plan


def shared(**changes: Any) -> dict[str, Any]:
    return {"recipes": [{k: v for k, v in recipe(**changes).items() if v is not None}]}


def pretrained(**changes: Any) -> dict[str, Any]:
    config = {"n_layer": 2, "n_embd": 16, "n_head": 2, "n_positions": 32, "vocab_size": 300}
    return {"teacher": {"name": "t", "pretrain": {"config": config, "recipe": recipe(**changes)}}}


def finetuned(**changes: Any) -> dict[str, Any]:
    return {
        "tasks": [{"task": "pydoc.reversed.v1", "train_rows": 8}],
        "finetune": {"learning_rate": 1e-3, "epochs": 2, "batch_examples": 4, "max_length": 32} | changes,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (shared(tokens=None), "recipes.0.shared: exactly one of tokens, flops is needed; given: neither"),
        (shared(flops=1e9), "recipes.0.shared: exactly one of tokens, flops is needed; given: both"),
        (
            shared(learning_rate={"gird": [1.0, 2.0]}),
            "recipes.0.shared.learning_rate.gird: unknown key; did you mean 'grid'?",
        ),
        (
            shared(learning_rate={"grid": [1e-3]}),
            "recipes.0.shared.learning_rate.grid: List should have at least 2 items",
        ),
        (shared(learning_rate={"grid": [1e-3, 1e-3]}), "recipes.0.shared.learning_rate.grid: the same rate twice"),
        (
            shared(learning_rate={"grid": [1e-3, 1e-2], "trial_fraction": 0.5}),
            "recipes.0.shared.learning_rate: 2 rates x trial_fraction 0.5 leave nothing of the training",
        ),
        (
            shared(learning_rate={"grid": [1e-3, 1e-2], "trial_fraction": 0.1}),
            "recipes.0.learning_rate: 2 trials of trial_fraction 0.1, 0 steps each, leave 4 of the run's 4 steps",
        ),
        (
            shared(learning_rate={"grid": [1e-3, 1e-2], "trial_fraction": 0.4}, tokens=256),
            "recipes.0.learning_rate: 2 trials of trial_fraction 0.4, 1 steps each, leave 0 of the run's 2 steps",
        ),
        (shared(warmup_steps=4000), "recipes.0: warmup_steps 4000 is longer than the run's 4 steps"),
        (shared(warmup_steps=1, warmup_fraction=0.1), "recipes.0.shared: give one of warmup_fraction, warmup_steps"),
        (
            shared(warmup_steps=3) | {"methods": ["staged"]},
            "recipes.0: warmup_steps 3 is longer than the run's 1 steps of phase 1 of staged params=0.8",
        ),
        (pretrained(warmup_steps=5), "teacher.pretrain.recipe: warmup_steps 5 is longer than the run's 4 steps"),
        (
            pretrained(learning_rate=GRID),
            "teacher.pretrain.recipe.learning_rate: one number; a grid of rates is for a sweep's `recipes`",
        ),
        (
            finetuned(learning_rate=GRID),
            "finetune.learning_rate.trial_fraction: unknown key; known: grid, held_out, trial_epochs",
        ),
        (
            finetuned(learning_rate={"grid": [1e-3, 1e-2], "held_out": 0.6}),
            "finetune.learning_rate.held_out: Input should be less than or equal to 0.5",
        ),
        (
            finetuned(learning_rate={"grid": [1e-3, 1e-2]}),
            "finetune.learning_rate.grid: pydoc.reversed.v1 has 8 training rows; holding 100 out takes 200",
        ),
        (finetuned(max_length=33), "finetune: max_length 33 is more than the 32 positions"),
        (
            finetuned() | {"tasks": [{"task": "pydoc.reversed.v1", "predict_test": True}]},
            "tasks: pydoc.reversed.v1 has no test sets: `predict_test` is for tasks that do",
        ),
        (
            {"tasks": [{"task": "words.token_ppl.v1", "predict_test": True}]},
            "tasks: words.token_ppl.v1 does not train: `predict_test` is for fine-tuned tasks",
        ),
        (finetuned(warmup_steps=5), "finetune: warmup_steps 5 is longer than the 4 steps of pydoc.reversed.v1"),
        (
            shared(deepspeed={"scheduler": {"type": "WarmupLR"}}),
            "recipes.0.deepspeed.scheduler: the schedule is the recipe's: use schedule, warmup_fraction",
        ),
        (
            pretrained(deepspeed={"fp16": {"enabled": True}}),
            "teacher.pretrain.recipe.deepspeed.fp16: the precision is the recipe's: use precision",
        ),
        (
            finetuned(deepspeed={"gradient_clipping": 0.5}),
            "finetune.deepspeed.gradient_clipping: clipping is the recipe's: use gradient_clipping",
        ),
        (
            shared(deepspeed={"zero_optimisation": {}}),
            "recipes.0.deepspeed.zero_optimisation: DeepSpeed has no such key; did you mean 'zero_optimization'?",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused(
    plugin: Path, corpus: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    ended = weighin("plan", write(tmp_path / "bad.yaml", sweep(corpus, **changes)), "--store", tmp_path / "store")
    assert ended.code == 2
    assert f"bad.yaml: {message}" in ended.err
    assert len(ended.err.splitlines()) <= 2


def test_the_known_raw_keys_are_those_that_deepspeed_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    from deepspeed.runtime import config as deepspeed_config

    looked_up: set[str] = set()

    class Asked(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            looked_up.add(key)
            return super().get(key, default)

        def __getitem__(self, key: str) -> Any:
            looked_up.add(key)
            return super().__getitem__(key)

        def __contains__(self, key: object) -> bool:
            looked_up.add(str(key))
            return super().__contains__(key)

        def keys(self) -> Any:
            return self

    deepspeed_config.DeepSpeedConfig(Asked(train_batch_size=1))
    removed = set(deepspeed_config._REMOVED_TOP_LEVEL_CONFIG_KEYS)
    in_a_process_group = {"sequence_parallel_size"}
    assert looked_up - removed - RECIPE_KEYS.keys() | in_a_process_group == KNOWN_KEYS
    assert RECIPE_KEYS.keys() - looked_up == set()
