"""Learning rates of fine-tuning: tried on part of the training examples, judged on the others, never on the dev set."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from micro_sweep import board_rows, sweep, weighin, write

from harness.engine.batches import ExampleBatches
from harness.engine.held_out import split_examples
from harness.graph import Stage
from harness.planner import plan_sweep
from harness.spec import load_sweep
from harness.stage import StageFailure
from harness.stages import finetune_trial, loaded
from methods.recipe import FineTune
from results.artifacts import Artifacts
from results.store import Store
from tasks import embedded_tasks
from tasks.embedded_tasks import PydocReversed

pytestmark = pytest.mark.sweep

TASK, ROWS, RATES = "pydoc.reversed.v1", 220, [1e-3, 3e-2, 1e12]
RECIPE = {"epochs": 2, "batch_examples": 20, "max_length": 24, "learning_rate": {"grid": RATES}}


def content(corpus: Path, **changes: Any) -> dict[str, Any]:
    tasks = [{"task": TASK, "train_rows": ROWS}]
    made = sweep(corpus, methods=["identity", "svd"], recipes=["none"], tasks=tasks, finetune=RECIPE)
    made["finetune"] |= {"losses": {"ce": 1, "kd": 1}}
    return made | changes


class Ran:
    """A finished run, and what was read on the way."""

    def __init__(self, path: Path, store: Path) -> None:
        self.path, self.store = path, store
        self.trained: list[tuple[tuple[int, ...], ...]] = []
        self.events: list[str] = []
        self.artifacts = Artifacts(Store(str(store)))
        self.plan = plan_sweep(load_sweep(path), None)

    def final(self, method: str) -> Stage:
        (cell,) = (cell for cell in self.plan.cells if cell.contender.name == method)
        return cell.stages[TASK]

    def trials(self, method: str) -> list[Stage]:
        return [parent for role, parent in self.final(method).parents.items() if role.startswith("trial ")]

    def result(self, stage: Stage) -> Mapping[str, Any]:
        found = self.artifacts.manifest(stage.name, stage.key)
        assert found
        return found.result

    def directory(self, stage: Stage) -> Path:
        return self.artifacts.directory(stage.name, stage.key)


@pytest.fixture(scope="module")
def ran(plugin: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    root = tmp_path_factory.mktemp("finetune")
    found = Ran(write(root / "micro.yaml", content(corpus)), root / "store")
    read = loaded.encoded_examples

    class Noted(ExampleBatches):
        def __init__(self, encoded: Any, *arguments: Any, **options: Any) -> None:
            found.trained.append(tuple(tuple(ids) for ids in encoded))
            found.events.append(f"{len(encoded)} batched")
            super().__init__(encoded, *arguments, **options)

    def noted(task: Any, split: str, *arguments: Any, **options: Any) -> Any:
        found.events.append(f"{split} read")
        return read(task, split, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded_tasks, "VALIDATION_SIZE", 40)
        patch.setattr("harness.stages.classifier.ExampleBatches", Noted)
        patch.setattr("harness.stages.classifier.encoded_examples", noted)
        loaded.forget()
        ended = weighin("run", found.path, "--store", found.store, "--on", "inline")
        loaded.forget()
    assert ended.code == 0, ended
    return found


def test_trials_train_on_part_of_the_rows_and_the_training_on_all(ran: Ran) -> None:
    sizes = [len(rows) for rows in ran.trained]
    assert sorted(sizes) == [ROWS - 100] * 6 + [ROWS] * 2
    everything = next(rows for rows in ran.trained if len(rows) == ROWS)
    part = {rows for rows in ran.trained if len(rows) != ROWS}
    assert len(part) == 1
    kept, _ = split_examples(np.arange(ROWS) % 2, 0.1)
    assert part == {tuple(everything[row] for row in kept)}


def test_a_trial_does_not_read_the_validation_split(ran: Ran) -> None:
    trial = ["train read", f"{ROWS - 100} batched"]
    final = ["train read", f"{ROWS} batched", "validation read"]
    assert ran.events == 2 * (3 * trial + final)


@pytest.mark.parametrize("method", ["identity", "svd"])
def test_the_best_score_on_what_was_held_out_decides(ran: Ran, method: str) -> None:
    trials, final = [ran.result(stage) for stage in ran.trials(method)], ran.result(ran.final(method))
    assert [trial["learning_rate"] for trial in trials] == RATES
    assert {trial["held_out_examples"] for trial in trials} == {100}
    assert "held_out_score" not in trials[2]
    assert trials[2]["diverged_at_step"] >= 1
    scores = {trial["learning_rate"]: trial["held_out_score"] for trial in trials[:2]}
    assert final["learning_rate"] == max(scores, key=lambda rate: (scores[rate], -rate))
    curve = json.loads((ran.directory(ran.final(method)) / "curve.json").read_text())
    assert max(point["learning_rate"] for point in curve) == final["learning_rate"]
    assert len(curve) == 2 * math.ceil(ROWS / 20)


def test_a_trial_is_a_plain_fine_tuning(ran: Ran) -> None:
    """Of the teacher, recomputed with nothing of the engine but the order of the examples."""
    from transformers import AutoTokenizer

    from tasks.encoding import encode

    stage, source = ran.trials("identity")[1], ran.directory(ran.final("identity").parents["model"]) / "model"
    encoded = encode(AutoTokenizer.from_pretrained(source), PydocReversed().examples("train", None, ROWS), 24)
    kept, held_out = (encoded.take(rows) for rows in split_examples(encoded.labels, 0.1))
    model = loaded.base_model(source, 2, seed=0).train()
    data = ExampleBatches(kept.input_ids, kept.labels.tolist(), 20, 0, 0)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [{"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.01}, *others])
    for step in range(12):
        batch = data.micro_batches(step, rank=0, world=1, micro=20)[0].tensors
        torch.nn.functional.cross_entropy(
            logits(model, batch["input_ids"], batch["attention_mask"]), batch["labels"]
        ).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        warm, x = step < 1, (step - 1) / 10
        for group in optimizer.param_groups:
            group["lr"] = 3e-2 * (1.0 if warm else 0.1 + 0.9 * (1 + math.cos(math.pi * x)) / 2)
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        found = [logits(model, torch.tensor([list(ids)])).argmax().item() for ids in held_out.input_ids]
    assert ran.result(stage)["held_out_score"] == pytest.approx(np.mean(np.array(found) == held_out.labels), abs=0.011)


def logits(model: Any, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    mask = torch.ones_like(ids) if mask is None else mask
    hidden = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
    return torch.stack([model.score(row[int(m.sum()) - 1]) for row, m in zip(hidden, mask, strict=True)])


def test_what_was_tried_and_taken_is_on_the_board(ran: Ran) -> None:
    records = {record.cell.method: record for record in Store(str(ran.store)).records()}
    (tuning,) = records["svd"].tuning
    assert (tuning.task, [trial.learning_rate for trial in tuning.trials]) == (TASK, RATES)
    assert [trial.held_out_score is None for trial in tuning.trials] == [False, False, True]
    assert {cost.key for cost in records["svd"].costs} >= {stage.key for stage in ran.trials("svd")}
    chosen = ran.result(ran.final("svd"))["learning_rate"]
    rows = board_rows(weighin("board", "--format", "json", "--store", ran.store).data)
    (seed,) = rows[records["svd"].row]["seeds"]
    assert (seed["tokens"], seed["tuning"][0]["learning_rate"]) == (0, chosen)
    shown = " ".join(weighin("show", records["svd"].row, "--store", ran.store).out.split())
    assert f"tuning of {TASK} 3 rates, " in shown
    assert f"chose {chosen:g} (seed 0); diverged: 1e+12 (seed 0)" in shown
    board = weighin("board", "--format", "md", "--store", ran.store).out
    assert "2 epochs, 220 rows, best of 3 rates, ILKD (kd 1, taps 0)" in board


def test_a_plan_prices_trials(ran: Ran, tmp_path: Path) -> None:
    stages = {s["key"]: s for s in weighin("plan", ran.path, "--store", tmp_path / "store", "--json").data["stages"]}
    assert {stages[stage.key]["tokens"] for stage in ran.trials("svd")} == {int(0.9 * ROWS * 24 * 2)}
    assert [stages[stage.key]["label"] for stage in ran.trials("svd")] == [
        f"{TASK} svd params=0.8 lr={rate:g} #0" for rate in RATES
    ]


def test_a_trial_does_not_depend_on_the_other_rates(ran: Ran, corpus: Path, tmp_path: Path) -> None:
    other = content(corpus)
    other["finetune"] |= {"learning_rate": {"grid": [*RATES[:2], 5e-3]}}
    plan = plan_sweep(load_sweep(write(tmp_path / "other.yaml", other)), None)
    (cell,) = (cell for cell in plan.cells if cell.contender.name == "identity")
    made = {stage.key for stage in ran.trials("identity")}
    trials = [stage.key in made for role, stage in cell.stages[TASK].parents.items() if role.startswith("trial ")]
    assert trials == [True, False, True]


def test_trial_epochs_and_warm_up(corpus: Path, plugin: Path, tmp_path: Path) -> None:
    asked = content(corpus)
    asked["finetune"] |= {"warmup_steps": 11, "learning_rate": {"grid": RATES[:2], "trial_epochs": 1}}
    cell = plan_sweep(load_sweep(write(tmp_path / "s.yaml", asked)), None).cells[0]
    trial = cell.stages[TASK].parents["trial 0"]
    assert (trial.params["recipe"]["epochs"], trial.params["epochs"]) == (1, 2)
    recipe = FineTune.model_validate_json(json.dumps(trial.params["recipe"]))
    tuned: Any = SimpleNamespace(recipe=recipe, context=SimpleNamespace(params=trial.params))
    # 11 of the 22 steps on all rows are 3 of a trial's 6.
    assert finetune_trial.optimisation(tuned, 1e-3, 6, ROWS).warmup_steps == 3


def test_every_rate_diverging_is_a_failure_that_says_so(ran: Ran, corpus: Path, tmp_path: Path) -> None:
    wild = content(corpus, methods=["identity"])
    wild["finetune"] |= {"learning_rate": {"grid": [1e12, 1e14]}}
    ended = weighin("run", write(tmp_path / "wild.yaml", wild), "--store", ran.store, "--on", "inline")
    assert ended.code == 1
    (record,) = (r for r in Store(str(ran.store)).records() if r.status == "failed")
    assert record.failure is not None
    assert record.failure.failure_class == "diverged"
    assert "every learning rate of the grid diverged: 1e+12 at step " in record.reason


@pytest.mark.parametrize("count", [200, 635, 2490])
@pytest.mark.parametrize("classes", [2, 3])
def test_each_class_has_its_share_of_what_is_held_out(count: int, classes: int) -> None:
    labels = np.random.default_rng(0).choice(classes, count, p=[0.7, *[0.3 / (classes - 1)] * (classes - 1)])
    kept, held_out = split_examples(labels, 0.1)
    assert len(held_out) == max(100, round(0.1 * count))
    assert sorted([*kept, *held_out]) == list(range(count))
    assert (np.diff(held_out) > 0).all()
    for label in range(classes):
        share = (labels == label).sum() * len(held_out) / count
        assert abs((labels[held_out] == label).sum() - share) <= 1
    np.testing.assert_array_equal(split_examples(labels, 0.1)[1], held_out)


def test_a_regression_s_labels_are_spread_over_what_is_held_out() -> None:
    labels = np.random.default_rng(0).uniform(0, 5, 1000)
    _, held_out = split_examples(labels, 0.2)
    assert np.abs(np.sort(labels[held_out]) - np.linspace(0.0125, 4.9875, 200)).max() < 0.2


def test_too_few_rows_to_hold_some_out() -> None:
    with pytest.raises(StageFailure, match="the task has 199 training rows; holding 100 out takes 200"):
        split_examples(np.zeros(199), 0.1)
