"""Controls: twins without the teacher and from random factors, from the sweep's key to the gains on the board."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from micro_sweep import recipe, sweep, weighin, write
from scipy import integrate, stats

from harness.cells import CellPlan, SweepPlan
from harness.driver import initial_states
from harness.planner import plan_sweep
from harness.pricing import prices
from harness.spec import load_sweep
from methods import student
from methods.recipe import Losses
from results.artifacts import Artifacts
from results.blocks import block_length
from results.record import Record
from results.store import Store

pytestmark = pytest.mark.sweep

BOTH = ["no_teacher", "random_init"]
METHODS = ["identity", "svd", "staged", "left_only", {"tensor_train": {"initialisation": "random"}}]
FINETUNE = {"learning_rate": 1e-3, "max_length": 32, "losses": {"ce": 1, "kd": 1}}


@pytest.fixture(scope="module")
def store(plugin: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of all but low rank, with both controls and two seeds."""
    root = tmp_path_factory.mktemp("controls")
    methods = [each for each in METHODS if each != "svd"]
    content = sweep(corpus, methods=methods, controls=BOTH, seeds=2) | {"tasks": ["words.token_ppl.v1"]}
    ended = weighin("run", write(root / "micro.yaml", content), "--store", root / "store", "--on", "inline")
    assert ended.code == 0, ended
    return root / "store"


@pytest.fixture
def planned(plugin: Path, corpus: Path, tmp_path: Path) -> Callable[..., SweepPlan]:
    """The plan of a micro sweep with some keys changed."""

    def plan(**changes: Any) -> SweepPlan:
        return plan_sweep(load_sweep(write(tmp_path / "sweep.yaml", sweep(corpus, **changes))), None)

    return plan


def record(store: Path, method: str, kind: str | None = None, seed: int = 0) -> Record:
    (found,) = (
        each
        for each in Store(str(store)).records()
        if (each.cell.method, each.cell.seed) == (method, seed)
        and (each.cell.control.kind if each.cell.control else None) == kind
    )
    return found


def model(store: Path, of: Record, stage: str) -> Any:
    return student.load(Artifacts(Store(str(store))).directory(stage, of.stages[stage]) / "model")


def cell(plan: SweepPlan, method: str, kind: str | None = None) -> CellPlan:
    found = [each for each in plan.cells if each.contender.name == method]
    return next(each for each in found if (each.control.kind if each.control else None) == kind)


def test_a_sweep_without_controls_keeps_its_rows_and_its_keys(planned: Any) -> None:
    plain, controlled = planned(methods=METHODS), planned(methods=METHODS, controls=BOTH)
    assert all(each.control is None for each in plain.cells)
    own = [each for each in controlled.cells if each.control is None]
    assert [(c.row, {k: s.key for k, s in c.stages.items()}) for c in own] == [
        (c.row, {k: s.key for k, s in c.stages.items()}) for c in plain.cells
    ]
    rows = {each.row for each in controlled.cells}
    assert len(rows) == 1 + 4 * 3
    assert all(each.control.of in rows - {each.row} for each in controlled.cells if each.control)


def test_without_the_teacher_only_the_losses_differ(planned: Any) -> None:
    plan = planned(controls=["no_teacher"], tasks=["words.token_ppl.v1", "pydoc.reversed.v1"], finetune=FINETUNE)
    row, twin = cell(plan, "svd"), cell(plan, "svd", "no_teacher")
    ours, theirs = row.stages["distill"], twin.stages["distill"]
    assert ours.parents["student"].key == theirs.parents["student"].key
    assert ours.parents["tokens"].key == theirs.parents["tokens"].key
    changed: Any = {**ours.params, "recipe": {**ours.params["recipe"], "losses": Losses(ce=1.0).model_dump()}}
    assert theirs.params == changed
    assert ours.params["recipe"]["losses"]["kd"] == 0.5
    assert row.stages["profile"].key == twin.stages["profile"].key
    finetuned = [each.stages["pydoc.reversed.v1"] for each in (row, twin)]
    assert finetuned[0].params == finetuned[1].params
    assert finetuned[0].parents["teacher"].key == finetuned[1].parents["teacher"].key
    shared = planned(recipes=[recipe(losses={"ce": 0.5, "kd": 0.5}), recipe()], controls=["no_teacher"])
    distilled = [each.stages["distill"].key for each in shared.cells if each.contender.name == "svd" and each.stages]
    assert distilled[1] == distilled[2], "the same training as a row by cross-entropy alone is computed once"


def test_from_random_factors_only_the_student_differs(planned: Any) -> None:
    plan = planned(controls=["random_init"], seeds=2)
    row, twin = cell(plan, "svd"), cell(plan, "svd", "random_init")
    ours, theirs = row.stages["distill"], twin.stages["distill"]
    assert theirs.params == ours.params
    assert {name for name in ours.parents if ours.parents[name].key != theirs.parents[name].key} == {"student"}
    assert theirs.parents["student"].parents["compressed"].key == row.stages["compress"].key
    seeds = [each.stages["compress"].key for each in plan.cells if each.control]
    assert len(set(seeds)) == 2


def test_a_control_that_would_control_nothing_is_skipped_with_its_reason(planned: Any) -> None:
    plan = planned(methods=METHODS, controls=BOTH, recipes=[recipe(losses={"ce": 1.0, "taps": 1.0})])
    assert cell(plan, "svd", "no_teacher").refusal.startswith("no term of the recipe compares with a teacher")
    assert "takes no weights from the teacher" in cell(plan, "tensor_train", "random_init").refusal
    assert cell(plan, "svd", "random_init").refusal == ""
    taps = planned(methods=["kronecker"], controls=BOTH, recipes=[recipe(losses={"ce": 1.0, "taps": 1.0})])
    assert cell(taps, "kronecker", "no_teacher").refusal == ""
    full = planned(controls=["random_init"], budgets=[{"params": 1.0}])
    assert "the plan keeps the teacher as it is" in cell(full, "svd", "random_init").refusal
    refused = planned(controls=BOTH, budgets=[{"params": 0.05}], recipes=["none", "paper", recipe()])
    assert [each.control for each in refused.cells] == [None] * 4


def test_the_twin_has_the_shapes_and_other_factors(store: Path) -> None:
    before, after = (model(store, record(store, "staged", kind), "compress") for kind in (None, "random_init"))
    assert after.config.surgery == before.config.surgery
    for name, parameter in before.named_parameters():
        twin = after.get_parameter(name)
        assert twin.shape == parameter.shape
        assert torch.equal(twin, parameter) != name.endswith((".left", ".right")), name
    assert record(store, "staged", "random_init").size == record(store, "staged").size


def test_a_frozen_method_trains_what_its_plan_names_also_from_random_factors(store: Path) -> None:
    twin = record(store, "left_only", "random_init")
    drawn, trained, own = (
        model(store, twin, "compress"),
        model(store, twin, "distill"),
        model(store, record(store, "left_only"), "compress"),
    )
    for name, parameter in drawn.named_parameters():
        assert torch.equal(parameter, own.get_parameter(name)) != name.endswith(".left"), name
        assert torch.equal(parameter, trained.get_parameter(name)) != name.endswith(".left"), name


def test_a_staged_method_s_twins_go_through_the_same_phases(store: Path) -> None:
    artifacts = Artifacts(Store(str(store)))
    curves = [record(store, "staged", kind).curve for kind in (None, *BOTH)]
    steps = [[(point["step"], point["tokens"]) for point in curve] for curve in curves]
    assert steps == [[(1, 128), (2, 256), (3, 384), (4, 512)]] * 3
    last = artifacts.manifest("distill", record(store, "staged", "random_init").stages["distill"])
    assert last is not None
    drawn = artifacts.manifest("compress", last.parts["parents"]["student"])
    assert drawn is not None
    phase_1, compressed, phase_2 = (
        student.load(artifacts.directory(stage, key) / "model")
        for stage, key in (
            ("distill", drawn.parts["parents"]["student"]),
            ("compress", drawn.parts["parents"]["compressed"]),
            ("compress", drawn.key),
        )
    )
    for path in phase_2.config.surgery:
        carried = path in phase_1.config.surgery
        left = phase_2.get_submodule(path).left
        assert torch.equal(left, compressed.get_submodule(path).left) == carried
        assert not carried or torch.equal(left, phase_1.get_submodule(path).left)


def test_a_twin_is_priced_by_its_own_training(planned: Any, tmp_path: Path) -> None:
    plan = planned(methods=["staged"], controls=BOTH)
    artifacts = Artifacts(Store(str(tmp_path / "store")))
    found = prices(plan, initial_states(plan, artifacts), artifacts)

    def flops(kind: str | None) -> list[float]:
        return [found[each.key].flops for each in cell(plan, "staged", kind).needed if each.name == "distill"]

    assert flops("random_init") == flops(None)
    helped = [128 * 2 * plan.teacher_params, 384 * 2 * plan.teacher_params]
    assert [a - b for a, b in zip(flops(None), flops("no_teacher"), strict=True)] == helped


def test_plan_shows_the_twins_and_what_they_cost(plugin: Path, corpus: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "sweep.yaml", sweep(corpus, methods=METHODS, controls=BOTH))
    shown = weighin("plan", path, "--store", tmp_path / "store")
    assert "distill svd params=0.8 no_teacher #0" in shown.out
    assert "redraw svd params=0.8 random_init #0" in shown.out
    assert "tensor_train initialisation=random params=0.8 shared random_init #0: the method takes" in shown.out
    assert "13 cells (1 skipped, 8 controls)" in shown.out
    assert "of it for controls: 3,584 tokens" in shown.out
    cells = weighin("plan", path, "--store", tmp_path / "store", "--json").data["cells"]
    controls = [each["control"] for each in cells if "control" in each]
    assert {each["kind"] for each in controls} == set(BOTH)
    assert {each["of"] for each in controls} == {each["row"] for each in cells if "control" not in each} - {
        cells[0]["row"]
    }


def logs(store: Path, method: str, kind: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Log perplexities (S) and the items' influence on them (S x N), from the items' files."""
    values, influence = [], []
    for seed in (0, 1):
        found = record(store, method, kind, seed)
        (measured,) = (each for each in found.measured if each.when == "final")
        assert measured.items_path is not None
        table = pq.read_table(store / measured.items_path)
        nll, tokens = table["nll"].to_numpy(), table["tokens"].to_numpy()
        values.append(nll.sum() / tokens.sum())
        influence.append((nll - values[-1] * tokens) / tokens.mean())
        assert measured.value == pytest.approx(np.exp(values[-1]), rel=1e-6)
    return np.array(values), np.array(influence)


def blocks(d_N: np.ndarray, length: int) -> float:
    """The variance of a mean of neighbours, summed over all blocks of a circle."""
    items = len(d_N)
    sums = [d_N.take(range(first, first + length), mode="wrap").sum() ** 2 for first in range(items)]
    return sum(sums) / (length * items * (items - length))


def outside(half: float, seeds: float, seeds_dof: int, beyond: float, items_dof: float) -> float:
    """P(|sqrt(seeds) T + sqrt(beyond) T'| > half), by integrating over T."""

    def integrand(t: float) -> float:
        at = seeds**0.5 * t
        return stats.t.pdf(t, seeds_dof) * (
            stats.t.sf((half - at) / beyond**0.5, items_dof) + stats.t.cdf((-half - at) / beyond**0.5, items_dof)
        )

    edge = half / seeds**0.5
    parts = (-np.inf, -edge, 0, edge, np.inf)
    return sum(integrate.quad(integrand, *ends, limit=200)[0] for ends in pairwise(parts))


@pytest.mark.parametrize("kind", BOTH)
def test_gains_are_those_of_the_items(store: Path, kind: str) -> None:
    (t_row, d_row), (t_twin, d_twin) = (logs(store, "staged", each) for each in (None, kind))
    t_S, d_SN = t_twin - t_row, d_twin - d_row
    seeds, items = d_SN.shape
    length = block_length(d_SN.mean(0))
    from_seeds = t_S.var(ddof=1) / seeds
    from_items = max(blocks(d_SN.mean(0), 1), blocks(d_SN.mean(0), length))
    both = sum(blocks(d_N, length) for d_N in d_SN - d_SN.mean(0)) / ((seeds - 1) * seeds)
    beyond = max(0, from_items - min(from_seeds, both))
    twin = controls(store)["staged", kind]
    (gain,) = twin["gains"].values()
    assert gain["value"] == pytest.approx(t_S.mean(), rel=1e-6)
    half = (gain["high"] - gain["low"]) / 2
    assert gain["high"] + gain["low"] == pytest.approx(2 * t_S.mean(), rel=1e-5)
    assert outside(half, from_seeds, seeds - 1, beyond, 3 * length * items / (2 * length**2 + 1) - 1) == pytest.approx(
        0.05, rel=1e-2
    )
    assert gain["basis"] == "seeds and items"


def controls(store: Path) -> Mapping[tuple[str, str], Any]:
    (tab,) = weighin("board", "--format", "json", "--store", store).data["tabs"]
    return {(each["row"]["method"], each["control"]): each for each in tab["controls"]}


def test_twins_stand_beside_their_rows_and_never_among_them(store: Path) -> None:
    (tab,) = weighin("board", "--format", "json", "--store", store).data["tabs"]
    rows = {row["id"]: row for group in tab["groups"] for row in group["rows"]}
    assert sorted(row["method"] for row in rows.values()) == ["left_only", "staged", "tensor_train"]
    (column,) = (each["key"] for each in tab["columns"])
    assert max(row["quality"][column]["rank"][1] for row in rows.values()) == 3
    assert len(tab["controls"]) == 6
    for each in tab["controls"]:
        assert each["of"] in rows
        assert each["row"]["id"] not in rows
        if each["row"]["status"] == "complete":
            assert each["row"]["quality"][column]["rank"] is None


@pytest.mark.parametrize("form", ["table", "md", "csv", "html"])
def test_every_form_of_the_board_shows_gains_and_reasons(store: Path, form: str) -> None:
    shown = weighin("board", "--format", form, "--store", store).out
    flat = " ".join(shown.replace("\\", "").split())
    found = controls(store)
    for (method, _), each in found.items():
        assert each["row"]["id"] in flat
        assert method in flat
    assert "the method takes no weights from the teacher" in flat
    (gain,) = found["staged", "random_init"]["gains"].values()
    if form == "csv":
        lines = {line["row"]: line for line in csv.DictReader(io.StringIO(shown))}
        line = lines[found["staged", "random_init"]["row"]["id"]]
        assert (line["group"], line["control"], line["control_of"]) == (
            "controls", "random_init", found["staged", "random_init"]["of"]
        )  # fmt: skip
        assert float(line["words.token_ppl.v1 ppl gain"]) == gain["value"]
    else:
        assert "distillation" in flat
        assert "decomposition" in flat
        assert f"{gain['value']:+.3g}"[:5].replace("-", "−") in flat


def test_show_tells_the_gains_of_a_row_and_whose_twin_a_control_is(store: Path) -> None:
    each = controls(store)["staged", "no_teacher"]
    shown = weighin("show", each["of"], "--store", store)
    assert "from distillation, words.token_ppl.v1 ppl" in shown.out
    assert f"over {each['row']['id']}" in shown.out
    data = weighin("show", each["of"], "--store", store, "--json").data
    assert [twin["control"] for twin in data["controls"]] == BOTH
    assert data["controls"][0]["gains"].keys() == each["gains"].keys()
    seed = weighin("show", f"{each['of']}#1", "--store", store, "--json").data
    (gain,) = seed["controls"][0]["gains"].values()
    assert gain["basis"] == "items only"
    twin = weighin("show", each["row"]["id"], "--store", store)
    assert f"no_teacher of {each['of']}" in twin.out
