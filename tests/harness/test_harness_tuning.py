"""Learning rates tried within a cell's own budget, and budgets in FLOPs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from micro_sweep import board_rows, made, recipe, sweep, weighin, write

from harness.engine.batches import TokenBatches
from harness.engine.held_out import split_held_out
from harness.engine.trainer import learning_rate
from harness.graph import Stage
from harness.planner import plan_sweep
from harness.spec import load_sweep
from harness.stage import StageFailure
from methods import student
from methods.recipe import Optimisation
from results.artifacts import Artifacts, Manifest
from results.record import Record
from results.store import Store

pytestmark = pytest.mark.sweep

RATES = [1e-3, 3e-2, 1e10]
GRID = {"grid": RATES, "trial_fraction": 0.2}
LOSSES = {"ce": 0.5, "kd": 0.5}
TEACHER_FORWARD = 2 * (12 * 2 * 16**2 + 300 * 16) + 2 * 4 * 32 * 16
"""FLOPs per token: matrices and output matrix, and attention's 4 T D in each of two layers."""
FLOPS, PRETRAINING_FLOPS = 2e8, 4e7
RECIPES = {
    "tuned": recipe(tokens=2560, learning_rate=GRID, losses=LOSSES),
    "flops": {key: value for key, value in recipe(flops=FLOPS, losses=LOSSES).items() if key != "tokens"},
    "alone": {key: value for key, value in recipe(flops=FLOPS, learning_rate=GRID).items() if key != "tokens"},
}


def content(corpus: Path, **changes: Any) -> dict[str, Any]:
    asked = [RECIPES["tuned"], RECIPES["flops"]]
    made = sweep(corpus, methods=["svd", "staged"], recipes=asked, tasks=["words.token_ppl.v1"])
    pretraining = made["teacher"]["pretrain"]["recipe"]
    del pretraining["tokens"]
    pretraining["flops"] = PRETRAINING_FLOPS
    return made | changes


class Ran:
    """A finished run: what each row's stages left."""

    def __init__(self, paths: list[Path], store: Path, streams: list[np.ndarray]) -> None:
        self.paths, self.store, self.streams = paths, store, streams
        self.artifacts = Artifacts(Store(str(store)))
        self.cells = {
            (cell.contender.name, name): cell
            for path in paths
            for cell in plan_sweep(load_sweep(path), None).cells
            for name, asked in RECIPES.items()
            if cell.recipe and cell.recipe.model_dump() == _asked(asked)
        }

    def stages(self, method: str, recipe: str, name: str) -> list[Stage]:
        return [stage for stage in self.cells[method, recipe].needed if stage.name == name]

    def manifest(self, stage: Stage) -> Manifest:
        found = self.artifacts.manifest(stage.name, stage.key)
        assert found
        return found

    def results(self, method: str, recipe: str, name: str) -> list[Mapping[str, Any]]:
        return [self.manifest(stage).result for stage in self.stages(method, recipe, name)]

    def spent(self, method: str, recipe: str, what: str) -> float:
        results = [*self.results(method, recipe, "tune"), *self.results(method, recipe, "distill")]
        return float(sum(result[what] for result in results))

    def record(self, method: str, recipe: str) -> Record:
        (found,) = (r for r in Store(str(self.store)).records() if r.row == self.cells[method, recipe].row)
        return found

    def tokens(self) -> np.ndarray:
        (manifest,) = self.artifacts.manifests("tokens")
        return np.load(self.artifacts.directory("tokens", manifest.key) / "train.npy")


def _asked(asked: Mapping[str, Any]) -> Mapping[str, Any]:
    from methods.recipe import Recipe

    return Recipe.model_validate(asked).model_dump()


@pytest.fixture(scope="module")
def ran(plugin: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A low-rank and a staged method under each of `RECIPES`; the streams that were trained on are noted."""
    root = tmp_path_factory.mktemp("tuning")
    path = write(root / "micro.yaml", content(corpus))
    alone = write(root / "alone.yaml", content(corpus, methods=["svd"], recipes=[RECIPES["alone"]]))
    streams: list[np.ndarray] = []

    class Noted(TokenBatches):
        def __init__(self, tokens: np.ndarray, *arguments: Any) -> None:
            streams.append(np.asarray(tokens))
            super().__init__(tokens, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.stages.language_model.TokenBatches", Noted)
        for each in (path, alone):
            ended = weighin("run", each, "--store", root / "store", "--on", "inline")
            assert ended.code == 0, ended
    return Ran([path, alone], root / "store", streams)


@pytest.mark.parametrize(("method", "trainings"), [("svd", [20]), ("staged", [5, 15])])
def test_trials_and_training_share_the_tokens_of_the_recipe(ran: Ran, method: str, trainings: list[int]) -> None:
    asked: list[Any] = [stage.params["recipe"]["tokens"] for stage in ran.stages(method, "tuned", "tune")]
    trials = [round(0.2 * steps) for steps in trainings for _ in RATES]
    assert asked == [128 * steps for steps in trials]
    final = [result["tokens"] for result in ran.results(method, "tuned", "distill")]
    assert sum(asked) + sum(final) == 2560
    assert final == [128 * (steps - 3 * round(0.2 * steps)) for steps in trainings]


@pytest.mark.parametrize("method", ["svd", "staged"])
def test_the_best_rate_on_held_out_text_trains(ran: Ran, method: str) -> None:
    for stage, trained in zip(
        ran.stages(method, "tuned", "distill"), ran.results(method, "tuned", "distill"), strict=True
    ):
        trials = [ran.manifest(parent).result for parent in stage.parents.values() if parent.name == "tune"]
        losses = {trial["held_out_loss"]: trial["learning_rate"] for trial in trials if "held_out_loss" in trial}
        assert [trial["learning_rate"] for trial in trials] == RATES
        assert [trial["learning_rate"] for trial in trials if "diverged_at_step" in trial] == RATES[2:]
        assert trained["learning_rate"] == losses[min(losses)]
        curve = ran.artifacts.directory("distill", stage.key) / "curve.json"
        assert max(point["learning_rate"] for point in _json(curve)) == trained["learning_rate"]


def _json(path: Path) -> Any:
    import json

    return json.loads(path.read_text())


def test_a_trial_is_a_plain_training_judged_on_the_last_windows(ran: Ran) -> None:
    """Recomputed with nothing of the engine but the order of the windows."""
    stage, trial = ran.stages("svd", "tuned", "tune")[1], ran.results("svd", "tuned", "tune")[1]
    directories = {role: ran.artifacts.directory(p.name, p.key) / "model" for role, p in stage.parents.items()}
    model, teacher = (student.load(directories[role]) for role in ("student", "teacher"))
    tokens = ran.tokens()
    data = TokenBatches(tokens[: -8 * 32], 32, 128, 0)
    optimizer = torch.optim.AdamW(
        [{"params": [p for p in model.parameters() if (p.ndim > 1) == matrices], "weight_decay": decay}
         for matrices, decay in ((True, 0.01), (False, 0.0))], lr=3e-2,
    )  # fmt: skip
    for step in range(4):
        batch = data.micro_batches(step, rank=0, world=1, micro=4)[0].tensors
        mine = model(batch["input_ids"], use_cache=False).logits
        with torch.no_grad():
            theirs = torch.log_softmax(teacher(batch["input_ids"], use_cache=False).logits / 2, -1)
        kd = 4 * (theirs.exp() * (theirs - torch.log_softmax(mine / 2, -1))).sum(-1).mean()
        ce = torch.nn.functional.cross_entropy(mine.flatten(0, 1), batch["targets"].flatten())
        (0.5 * ce + 0.5 * kd).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        x = step / 3
        for group in optimizer.param_groups:
            group["lr"] = 3e-2 * (0.1 + 0.9 * (1 + math.cos(math.pi * x)) / 2)
        optimizer.step()
        optimizer.zero_grad()
    held_out = torch.from_numpy(tokens[-8 * 32 :].astype(np.int64)).view(8, 32)
    with torch.no_grad():
        logits = model(held_out, use_cache=False).logits[:, :-1]
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), held_out[:, 1:].flatten()).item()
    assert trial["held_out_loss"] == pytest.approx(expected, rel=1e-4)


def test_the_held_out_windows_are_trained_on_by_nothing_that_is_tuned(ran: Ran) -> None:
    tokens = ran.tokens()
    tuned = [stream for stream in ran.streams if len(stream) != len(tokens)]
    assert len(tuned) == len(made_of(ran, "tune")) + sum(len(ran.stages(m, r, "distill")) for m, r in TUNED)
    for stream in tuned:
        np.testing.assert_array_equal(stream, tokens[: -8 * 32])


TUNED = [("svd", "tuned"), ("staged", "tuned"), ("svd", "alone")]


def made_of(ran: Ran, stage: str) -> list[Any]:
    return [each for each in made(ran.store) if each[0] == stage]


@pytest.mark.parametrize(("windows", "held_out"), [(16, 8), (900, 9), (10**5, 512)])
def test_a_hundredth_of_the_text_is_held_out_within_bounds(windows: int, held_out: int) -> None:
    text = np.arange(windows * 4 + 3)
    kept, rest = split_held_out(text, 4)
    assert len(rest) == held_out * 4
    np.testing.assert_array_equal(np.concatenate([kept, rest]), text)
    with pytest.raises(StageFailure, match="has 15 windows of 4 tokens; holding 8 out takes 16"):
        split_held_out(text[: 15 * 4], 4)


def _step_flops(ran: Ran, method: str, name: str) -> list[float]:
    return [128 * result["flops"] / result["tokens"] for result in ran.results(method, name, "distill")]


@pytest.mark.parametrize("method", ["svd", "staged"])
def test_a_budget_in_flops_is_met_within_a_step(ran: Ran, method: str) -> None:
    over = ran.spent(method, "flops", "flops") - FLOPS
    assert 0 <= over < _step_flops(ran, method, "flops")[-1]


def test_the_teachers_forward_pass_is_in_the_budget(ran: Ran) -> None:
    taught, alone = (_step_flops(ran, "svd", name)[0] / 128 for name in ("flops", "alone"))
    assert taught - alone == pytest.approx(TEACHER_FORWARD)
    (pretrained,) = (ran.manifest(s).result for s in ran.cells["svd", "flops"].needed if s.name == "teacher")
    assert pretrained["flops"] == pytest.approx(3 * TEACHER_FORWARD * pretrained["tokens"])
    assert pretrained["tokens"] == 128 * math.ceil(PRETRAINING_FLOPS / (3 * TEACHER_FORWARD * 128))


def test_trials_count_in_a_budget_of_flops(ran: Ran) -> None:
    asked = [
        stage.params["recipe"]["tokens"] for name in ("tune", "distill") for stage in ran.stages("svd", "alone", name)
    ]
    step = _step_flops(ran, "svd", "alone")[0]
    assert 0 <= sum(asked) / 128 * step - FLOPS < step
    assert sum(asked) > ran.spent("svd", "flops", "tokens")


def test_a_plan_prices_trials_and_flops(ran: Ran, tmp_path: Path) -> None:
    plans = [weighin("plan", path, "--store", tmp_path / "store", "--json").data for path in ran.paths]
    stages = [stage for plan in plans for stage in plan["stages"] if "tokens" in stage]
    price = {stage["key"]: (stage["tokens"], stage["flops"]) for stage in stages}
    for method, name in (("svd", "alone"), ("staged", "flops")):
        for stage in [*ran.stages(method, name, "tune"), *ran.stages(method, name, "distill")]:
            result = ran.manifest(stage).result
            tokens, flops = price[stage.key]
            assert tokens == stage.params["recipe"]["tokens"]
            assert flops / tokens == pytest.approx(result["flops"] / result["tokens"])


def test_a_record_says_what_was_tried_and_taken(ran: Ran) -> None:
    record = ran.record("staged", "tuned")
    assert [[trial.learning_rate for trial in each.trials] for each in record.tuning] == [RATES, RATES]
    chosen = [result["learning_rate"] for result in ran.results("staged", "tuned", "distill")]
    assert [each.learning_rate for each in record.tuning] == chosen
    assert {cost.key for cost in record.costs} >= {stage.key for stage in ran.stages("staged", "tuned", "tune")}
    assert ran.record("svd", "flops").tuning == []


def test_a_row_shows_its_tuning_and_its_tokens(ran: Ran) -> None:
    rows = board_rows(weighin("board", "--format", "json", "--store", ran.store).data)
    (seed,) = rows[ran.cells["svd", "tuned"].row]["seeds"]
    assert seed["tokens"] == ran.spent("svd", "tuned", "tokens")
    assert seed["flops"] == pytest.approx(ran.spent("svd", "tuned", "flops"))
    (tuning,) = seed["tuning"]
    (trained,) = ran.results("svd", "tuned", "distill")
    assert tuning["learning_rate"] == trained["learning_rate"]
    shown = " ".join(weighin("show", ran.cells["svd", "tuned"].row, "--store", ran.store).out.split())
    tried = sum(trial["tokens"] for trial in ran.results("svd", "tuned", "tune"))
    assert f"3 rates, {tried / 1000:.4g}k tokens, " in shown
    assert f"chose {trained['learning_rate']:g} (seed 0); diverged: 1e+10 (seed 0)" in shown
    page = weighin("board", "--format", "html", "--store", ran.store).out
    assert f"chose {trained['learning_rate']:g} (seed 0)" in page
    tokens = {method: ran.spent(method, "flops", "tokens") / 1000 for method in ("svd", "staged")}
    assert f"svd {tokens['svd']:.4g}k" in weighin("board", "--store", ran.store).out


def test_every_rate_diverging_is_a_failure_that_says_so(ran: Ran, corpus: Path, tmp_path: Path) -> None:
    wild = recipe(tokens=1280, learning_rate={"grid": [1e10, 1e12], "trial_fraction": 0.3})
    path = write(tmp_path / "wild.yaml", content(corpus, methods=["svd"], recipes=[wild]))
    ended = weighin("run", path, "--store", ran.store, "--on", "inline")
    assert ended.code == 1
    (record,) = (r for r in Store(str(ran.store)).records() if r.status == "failed")
    assert record.failure is not None
    assert record.failure.failure_class == "diverged"
    assert "every learning rate of the grid diverged: 1e+10 at step " in record.reason
    assert [each.learning_rate for each in record.tuning] == [None]


def test_warm_up_in_steps() -> None:
    recipe = Optimisation(learning_rate=2.0, schedule="constant", warmup_steps=4)
    assert [learning_rate(recipe, step, 10) for step in range(5)] == [0.5, 1.0, 1.5, 2.0, 2.0]


def test_a_trial_s_warm_up_is_scaled_to_it(plugin: Path, corpus: Path, tmp_path: Path) -> None:
    asked = recipe(tokens=128 * 50, warmup_steps=10, learning_rate={"grid": [1e-3, 1e-2], "trial_fraction": 0.3})
    path = write(tmp_path / "sweep.yaml", content(corpus, methods=["svd"], recipes=[asked]))
    warmups = {
        stage.name: (stage.params["recipe"]["warmup_steps"], stage.params["recipe"]["tokens"] // 128)
        for stage in plan_sweep(load_sweep(path), None).stages
        if stage.name in ("tune", "distill")
    }
    assert warmups == {"tune": (8, 15), "distill": (10, 20)}


def test_a_control_takes_the_steps_of_its_row(plugin: Path, corpus: Path, tmp_path: Path) -> None:
    asked = [RECIPES["flops"], RECIPES["tuned"]]
    path = write(tmp_path / "sweep.yaml", content(corpus, recipes=asked, controls=["no_teacher"]))
    cells = {cell.row: cell for cell in plan_sweep(load_sweep(path), None).cells}
    twins = [cell for cell in cells.values() if cell.control]
    assert len(twins) == 4
    for twin in twins:
        assert twin.control
        both = [
            [(s.name, s.params["recipe"]["tokens"]) for s in cell.needed if s.name in ("tune", "distill")]
            for cell in (twin, cells[twin.control.of])
        ]
        assert both[0] == both[1] != []
        losses = [s.params["recipe"]["losses"] for s in twin.needed if s.name in ("tune", "distill")]
        assert {loss["kd"] for loss in losses} == {0}
