"""What methods ask of the harness beyond compress and train: phases, statistics, a part that trains."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from micro_sweep import board_rows, made, recipe, sweep, weighin, write

from harness.cells import SweepPlan
from harness.driver import initial_states
from harness.errors import SpecError
from harness.planner import plan_sweep
from harness.pricing import prices
from harness.spec import load_sweep
from methods import student
from results.artifacts import Artifacts
from results.store import Store

pytestmark = pytest.mark.sweep

METHODS = ["identity", "svd", "staged", "left_only"]


@pytest.fixture(scope="module")
def store(plugin: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of `METHODS`."""
    root = tmp_path_factory.mktemp("stages")
    path = write(root / "micro.yaml", sweep(corpus, methods=METHODS, calibration={"sequences": 8}))
    ended = weighin("run", path, "--store", root / "store", "--on", "inline")
    assert ended.code == 0, ended
    return root / "store"


def student_of(store: Path, method: str, stage: str) -> Any:
    rows = board_rows(weighin("board", "--format", "json", "--store", store).data)
    (row,) = (row for row in rows.values() if row["method"] == method)
    key = row["run"]["seeds"]["0"]["stages"][stage]
    return student.load(Artifacts(Store(str(store))).directory(stage, key) / "model")


def test_every_stage_is_made_once(store: Path) -> None:
    assert Counter(stage for stage, _, _ in made(store)) == {
        "corpus": 1, "tokenizer": 1, "tokens": 1, "teacher": 1, "calibrate": 2, "compress": 4 + 2, "profile": 4,
        "distill": 2 + 2, "evaluate": 7,
    }  # fmt: skip


def test_a_staged_method_ends_with_the_layers_of_its_plan_and_the_recipe_s_tokens(store: Path) -> None:
    assert student_of(store, "staged", "distill").config.surgery == student_of(store, "svd", "distill").config.surgery
    artifacts = Artifacts(Store(str(store)))
    tokens = sorted(manifest.result["tokens"] for manifest in artifacts.manifests("distill"))
    assert tokens == [128, 384, 512, 512]


def test_a_staged_method_s_curve_goes_through_all_phases(store: Path) -> None:
    curves = {r.cell.method: r.curve for r in Store(str(store)).records() if r.cell.recipe == "shared"}
    steps = [(point["step"], point["tokens"]) for point in curves["staged"]]
    assert steps == [(1, 128), (2, 256), (3, 384), (4, 512)]
    assert steps == [(point["step"], point["tokens"]) for point in curves["svd"]]


@pytest.fixture
def staged(plugin: Path, corpus: Path, tmp_path: Path) -> Callable[[int], SweepPlan]:
    """The plan of a staged method trained for so many tokens in steps of 128."""

    def plan(tokens: int) -> SweepPlan:
        content = sweep(corpus, methods=["identity", "staged"], recipes=[recipe(tokens=tokens)])
        return plan_sweep(load_sweep(write(tmp_path / "sweep.yaml", content)), None)

    return plan


@pytest.mark.parametrize(("tokens", "steps"), [(512, [1, 3]), (640, [1, 4]), (700, [2, 4])])
def test_phases_share_out_the_steps_and_read_on_in_the_text(staged: Any, tokens: int, steps: list[int]) -> None:
    params: list[Any] = [stage.params for stage in staged(tokens).stages if stage.name == "distill"]
    assert [each["recipe"]["tokens"] for each in params] == [128 * count for count in steps]
    assert [each.get("first_step", 0) for each in params] == [0, steps[0]]


def test_a_recipe_with_fewer_steps_than_phases_is_refused(staged: Any) -> None:
    message = "recipes.0: 1 steps of 128 tokens leave none for phase 1 of 2 of staged params=0.8"
    with pytest.raises(SpecError, match=message):
        staged(128)


def test_a_phase_is_priced_by_the_size_of_its_student(staged: Any, tmp_path: Path) -> None:
    plan = staged(512)
    artifacts = Artifacts(Store(str(tmp_path / "store")))
    found = prices(plan, initial_states(plan, artifacts), artifacts)
    (cell,) = (each for each in plan.cells if each.contender.name == "staged")
    sizes = [
        round(found[stage.key].flops / found[stage.key].tokens / 6) for stage in cell.needed if stage.name == "distill"
    ]
    assert sizes == [phase.plan.size for phase in cell.phases]
    assert sizes[0] > sizes[1] == cell.solved.size


def test_the_first_phase_trains_dense_layers_that_the_second_compresses(store: Path) -> None:
    artifacts = Artifacts(Store(str(store)))
    (phased,) = (m for m in artifacts.manifests("compress") if "student" in m.parts["parents"])
    trained = student.load(artifacts.directory("distill", phased.parts["parents"]["student"]) / "model")
    made_of = student.load(artifacts.directory("compress", phased.key) / "model")
    kept = [path for path in trained.config.surgery if ".h.0." in path]
    assert set(trained.config.surgery) == set(kept)
    for path in kept:
        assert torch.equal(made_of.get_submodule(path).left, trained.get_submodule(path).left)
    assert len(made_of.config.surgery) > len(kept)


def test_only_what_the_plan_names_trains(store: Path) -> None:
    before, after = student_of(store, "left_only", "compress"), student_of(store, "left_only", "distill")
    assert {name for name, each in after.named_parameters() if each.requires_grad} == {
        name for name, _ in after.named_parameters() if name.endswith(".left")
    }
    for name, parameter in before.named_parameters():
        assert torch.equal(parameter, after.get_parameter(name)) != name.endswith(".left"), name


def test_calibration_is_identity_for_the_methods_that_need_it_alone(plugin: Path, corpus: Path, tmp_path: Path) -> None:
    def keys(**calibration: Any) -> dict[str, tuple[str, str]]:
        path = write(tmp_path / "sweep.yaml", sweep(corpus, methods=METHODS, calibration=calibration))
        cells = plan_sweep(load_sweep(path), None).cells
        return {cell.contender.name: (cell.row, cell.stages["compress"].key) for cell in cells}

    base = keys()
    for change in ({"sequences": 4}, {"sequence_length": 16}, {"seed": 1}):
        moved = keys(**change)
        assert {name for name in base if base[name] != moved[name]} == {"left_only"}
    assert keys(sequence_length=32) == base


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"calibration": {"sequence_length": 64}}, "calibration: sequence_length 64 is more than the 32 positions"),
        ({"calibration": {"sequence": 64}}, "calibration.sequence: unknown key; did you mean 'sequences'?"),
    ],
)
def test_a_calibration_that_cannot_be_is_refused(
    plugin: Path, corpus: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    ended = weighin("plan", write(tmp_path / "sweep.yaml", sweep(corpus, methods=METHODS, **changes)))
    assert ended.code == 2
    assert message in ended.err


def test_a_method_that_is_calibrated_needs_a_corpus(plugin: Path, store: Path, tmp_path: Path) -> None:
    teacher = json.dumps({"name": "given", "directory": str(tmp_path)})
    (tmp_path / "config.json").write_text(json.dumps(student_of(store, "identity", "compress").config.to_dict()))
    given = {"teacher": json.loads(teacher), "recipes": ["none"], "tasks": ["words.token_ppl.v1"]}
    content = {key: value for key, value in (sweep("") | given).items() if key != "corpus"}
    path = write(tmp_path / "sweep.yaml", content | {"methods": ["identity", "left_only"]})
    ended = weighin("plan", path)
    assert ended.code == 2
    assert "corpus: needed, because left_only is calibrated on training text" in ended.err


def test_a_budget_is_checked_in_its_own_unit(plugin: Path, corpus: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "micro.yaml", sweep(corpus, budgets=[{"macs": 0.8}], recipes=["none"]))
    ended = weighin("run", path, "--store", tmp_path / "store", "--on", "inline", "--set", "tasks=[words.token_ppl.v1]")
    assert ended.code == 0, ended
    board = weighin("board", "--format", "json", "--store", tmp_path / "store").data
    macs = {row["method"]: row["size"]["macs_per_token"] for row in board_rows(board).values()}
    assert macs["svd"] / macs["identity"] == pytest.approx(0.8, rel=0.02)
