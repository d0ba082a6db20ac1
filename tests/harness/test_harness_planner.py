"""From a sweep to cells, rows and stages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from micro_sweep import recipe, sweep, weighin, write

from harness.cells import CellPlan, SweepPlan
from harness.errors import SpecError
from harness.planner import plan_sweep
from harness.spec import load_sweep
from methods.interface import MethodError

FINETUNE = {"learning_rate": 1e-3, "max_length": 32, "losses": {"ce": 1, "kd": 1}}


@pytest.fixture
def planned(plugin: Path, corpus: Path, tmp_path: Path) -> Callable[..., SweepPlan]:
    """The plan of a micro sweep with some keys changed."""

    def plan(**changes: Any) -> SweepPlan:
        return plan_sweep(load_sweep(write(tmp_path / "sweep.yaml", sweep(corpus, **changes))), None)

    return plan


def stages(plan: SweepPlan) -> Counter[str]:
    return Counter(stage.name for stage in plan.stages)


def cell(plan: SweepPlan, method: str, seed: int = 0) -> CellPlan:
    (found,) = (c for c in plan.cells if c.contender.name == method and c.seed == seed)
    return found


def test_a_small_sweep(planned: Any) -> None:
    plan = planned()
    assert [each.name for each in plan.cells] == ["identity none #0", "svd params=0.8 shared #0"]
    assert stages(plan) == {
        "corpus": 1, "tokenizer": 1, "tokens": 1, "teacher": 1, "compress": 2, "profile": 2, "distill": 1, "evaluate": 3
    }  # fmt: skip
    assert set(cell(plan, "identity").stages) == {"compress", "profile", "words.token_ppl.v1"}
    both = {"words.token_ppl.v1", "words.token_ppl.v1 before"}
    assert set(cell(plan, "svd").stages) == {"compress", "profile", "distill", *both}
    assert plan.teacher_params == cell(plan, "identity").solved.size


def test_a_row_is_the_cells_that_differ_in_the_seed_alone(planned: Any) -> None:
    plan = planned(
        methods=["identity", {"svd": {"matrices": ["all", "ffn"]}}],
        budgets=[{"params": 0.8}, {"params": 0.9}],
        recipes=["none", recipe()],
        seeds=2,
    )
    rows = Counter(each.row for each in plan.cells)
    assert len(rows) == 1 + 2 * 2 * 2
    assert set(rows.values()) == {2}


def test_a_rows_id_is_stable(planned: Any) -> None:
    """It is what people write down: where things run, other methods and the sweep's name are not in it."""
    row = cell(planned(), "svd").row
    moved = planned(
        name="other", methods=["svd"], seeds=[3], resources={"default": {"cpus": 2}}, tasks=["words.token_ppl.v1"]
    )
    assert cell(moved, "svd", 3).row == row
    assert len(row) == 8
    assert cell(planned(budgets=[{"params": 0.81}]), "svd").row != row
    assert cell(planned(recipes=[recipe()]), "svd").row != row


def test_seeds_share_what_draws_nothing(planned: Any) -> None:
    one, three = stages(planned()), stages(planned(seeds=3))
    assert three == one | {"distill": 3, "evaluate": 2 + 3}
    zero, two = (cell(planned(seeds=3), "svd", seed).stages for seed in (0, 2))
    assert {label for label in zero if zero[label].key == two[label].key} == {
        "compress", "profile", "words.token_ppl.v1 before"
    }  # fmt: skip


def test_the_teachers_finetuning_is_the_identity_rows(planned: Any) -> None:
    plan = planned(tasks=["pydoc.reversed.v1"], finetune=FINETUNE, seeds=2)
    for seed in (0, 1):
        own = cell(plan, "identity", seed).stages["pydoc.reversed.v1"]
        student = cell(plan, "svd", seed).stages["pydoc.reversed.v1"]
        assert student.parents["teacher"].key == own.key
        assert own.params["keep_model"]
        assert not student.params["keep_model"]
        assert "teacher" not in own.parents
    assert stages(plan)["finetune"] == 4


def test_without_the_teachers_losses_finetuning_needs_no_teacher(planned: Any) -> None:
    plan = planned(tasks=["pydoc.reversed.v1"], finetune={"learning_rate": 1e-3, "max_length": 32})
    assert "teacher" not in cell(plan, "svd").stages["pydoc.reversed.v1"].parents


def test_the_teacher_is_finetuned_also_where_identity_is_not_asked_for(planned: Any) -> None:
    plan = planned(methods=["svd"], tasks=["pydoc.reversed.v1"], finetune=FINETUNE)
    assert stages(plan)["finetune"] == 2
    assert len(plan.cells) == 1


def test_a_task_brings_its_own_finetuning(planned: Any) -> None:
    own = {"task": "pydoc.reversed.v1", "finetune": {"learning_rate": 5e-3, "max_length": 32}, "train_rows": 8}
    plan = planned(tasks=[own, "pydoc.follows.v1"], finetune={"learning_rate": 1e-3, "max_length": 32})
    found = cell(plan, "identity").stages
    assert found["pydoc.reversed.v1"].params["recipe"]["learning_rate"] == 5e-3
    assert found["pydoc.reversed.v1"].params["train_rows"] == 8
    assert found["pydoc.follows.v1"].params["recipe"]["learning_rate"] == 1e-3
    with pytest.raises(SpecError, match=r"pydoc.reversed.v1 is fine-tuned: give `finetune`"):
        planned(tasks=["pydoc.reversed.v1"])


def test_a_refusal_is_a_skipped_cell_with_the_nearest_size(planned: Any) -> None:
    refused = cell(planned(budgets=[{"params": 0.05}]), "svd")
    assert refused.stages == {}
    assert "nearest is 0." in refused.refusal
    assert cell(planned(budgets=[{"bytes": 0.5}]), "svd").refusal == "svd cannot be budgeted in bytes"


def test_only_times_are_measured_alone(planned: Any) -> None:
    assert {stage.name for stage in planned().stages if stage.execution.alone} == {"profile"}


def test_without_a_published_recipe_paper_is_skipped(planned: Any) -> None:
    cells = planned(recipes=["paper"]).cells
    assert {cell.refusal for cell in cells if cell.contender.name == "svd"} == {"the method has no published recipe"}


def test_plan_prints_the_graph_and_writes_nothing(plugin: Path, corpus: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "sweep.yaml", sweep(corpus, methods=["identity", "svd"], budgets=[{"params": 0.05}]))
    shown = weighin("plan", path, "--store", tmp_path / "store")
    assert shown.code == 0
    assert "skipped  svd params=0.05 shared #0:" in shown.out
    assert "2 cells (1 skipped), 0 stages cached, 7 to run" in shown.out
    data = weighin("plan", path, "--store", tmp_path / "store", "--json").data
    assert {stage["state"] for stage in data["stages"]} == {"to run"}
    assert [set(each) for each in data["cells"]] == [{"row", "seed", "cell", p} for p in ("params", "skipped")]
    assert not (tmp_path / "store").exists()


def test_a_method_s_own_refusal_of_its_fields_names_the_method(planned: Any) -> None:
    with pytest.raises(MethodError, match=r"^svd: layers: 7 is no block of this model; they go from 0 to 1"):
        planned(methods=["identity", {"svd": {"layers": [0, 7]}}])
