"""Keys: what changes them and what does not, seen through the plans of two sweeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from micro_sweep import recipe, sweep, write

from harness.cells import SweepPlan
from harness.graph import Stage, ancestors_first, why_different
from harness.planner import plan_sweep
from harness.spec import load_sweep

Planned = Callable[..., SweepPlan]


@pytest.fixture
def planned(plugin: Path, corpus: Path, tmp_path: Path) -> Planned:
    """The plan of a micro sweep with some keys changed."""

    def plan(*overrides: str, **changes: Any) -> SweepPlan:
        path = write(tmp_path / "sweep.yaml", sweep(corpus, **changes))
        return plan_sweep(load_sweep(path, overrides), None)

    return plan


def keys(plan: SweepPlan) -> Mapping[str, str]:
    """Label -> key."""
    return {stage.label: stage.key for stage in plan.stages}


def changed(one: SweepPlan, other: SweepPlan) -> set[str]:
    """Names of the stages whose keys differ."""
    assert keys(one).keys() == keys(other).keys()
    return {stage.name for stage in one.stages if stage.key != keys(other)[stage.label]}


TRAINED = {"distill", "evaluate"}
ALL_BUT_TEXT = {"teacher", "compress", "distill", "evaluate", "profile"}


@pytest.mark.parametrize(
    "where",
    ["workers=2", "micro_batch=2", "zero_stage=3", "zero_stage=1 offload=true", "memory=1GiB",
     "checkpoint_every_s=1", "activation_checkpointing=true"],
)  # fmt: skip
def test_where_a_stage_runs_is_not_in_its_key(planned: Planned, where: str) -> None:
    base, moved = planned(), planned(*(f"resources.default.{key}" for key in where.split()))
    assert changed(base, moved) == set()
    assert all(one.execution != other.execution for one, other in zip(base.stages, moved.stages, strict=True))


@pytest.mark.parametrize("what", ["cpus=2", "gpus=1"])
def test_only_times_depend_on_the_number_of_processors(planned: Planned, what: str) -> None:
    assert changed(planned(), planned(f"resources.default.{what}")) == {"profile"}


@pytest.mark.parametrize("key", ["zero_optimization", "steps_per_print"])
def test_raw_deepspeed_keys_of_execution_are_not_in_a_key(planned: Planned, key: str) -> None:
    raw = planned(recipes=[recipe(losses={"ce": 0.5, "kd": 0.5}, deepspeed={key: {"x": 1}})])
    assert changed(planned(), raw) == set()
    assert [s.execution.deepspeed for s in raw.stages if s.name == "distill"] == [{key: {"x": 1}}]


def test_any_other_raw_deepspeed_key_is(planned: Planned) -> None:
    raw = recipe(losses={"ce": 0.5, "kd": 0.5}, deepspeed={"data_types": {"grad_accum_dtype": "bf16"}})
    assert changed(planned(), planned(recipes=[raw])) == TRAINED


@pytest.mark.parametrize(
    "field", [{"learning_rate": 2e-2}, {"tokens": 640}, {"batch_tokens": 64}, {"precision": "bf16"}, {"dropout": 0.1}]
)
def test_a_recipe_changes_what_it_trains_and_what_follows(planned: Planned, field: dict[str, Any]) -> None:
    losses = {"ce": 0.5, "kd": 0.5}
    assert changed(planned(), planned(recipes=[recipe(losses=losses, **field)])) == TRAINED


def test_a_parents_key_changes_its_descendants(planned: Planned) -> None:
    assert changed(planned(), planned("teacher.pretrain.recipe.learning_rate=0.02")) == ALL_BUT_TEXT
    assert changed(planned(), planned("teacher.pretrain.seed=1")) == ALL_BUT_TEXT


def test_names_are_not_in_a_key(planned: Planned) -> None:
    assert changed(planned(), planned("name=other", "description=other", "teacher.name=micro-gpt2")) == set()


def test_the_text_is(planned: Planned, corpus: Path, tmp_path: Path) -> None:
    other = tmp_path / "texts"
    for file in corpus.rglob("*.txt"):
        (other / file.relative_to(corpus)).parent.mkdir(parents=True, exist_ok=True)
        (other / file.relative_to(corpus)).write_text(file.read_text())
    before = planned(corpus={"directory": str(other)})
    assert changed(planned(), before) == set(), "where the text lies does not count"
    assert [cell.row for cell in before.cells] == [cell.row for cell in planned().cells]
    (other / "train" / "0.txt").write_text("another text")
    after = planned(corpus={"directory": str(other)})
    assert changed(before, after) == {stage.name for stage in before.stages}
    assert {cell.row for cell in before.cells}.isdisjoint(cell.row for cell in after.cells)


def stage(**changes: Any) -> Stage:
    return Stage(name="tokens", module="harness.stages.tokens", label="tokens", **changes)


def test_code_is_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "code_one.py").write_text("VALUE = 1\n")
    (tmp_path / "code_two.py").write_text("VALUE = 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    one, two = stage(code=("code_one",)), stage(code=("code_two",))
    assert len({stage().key, one.key, two.key}) == 3
    assert why_different(one.parts, two.parts) == ["code.code_one", "code.code_two"]


def test_why_different_names_the_part() -> None:
    base = stage(params={"a": 1, "b": 2}, data="x")
    parent = stage(params={"a": 3})
    assert why_different(base.parts, stage(params={"a": 1, "b": 2}, data="x").parts) == []
    assert why_different(base.parts, stage(params={"a": 1, "b": 3}, data="x").parts) == ["params.b"]
    assert why_different(base.parts, stage(params={"a": 1}, data="y").parts) == ["params.b", "data"]
    with_parent = stage(params={"a": 1, "b": 2}, data="x", parents={"corpus": parent})
    assert why_different(base.parts, with_parent.parts) == ["parents.corpus"]
    newer = dict(base.parts) | {"libraries": {"tokenizers": "0", "transformers": "0"}}
    assert why_different(base.parts, newer) == ["libraries.tokenizers", "libraries.transformers"]


def test_a_parameter_without_stable_bytes_is_an_error() -> None:
    with pytest.raises(TypeError, match="no stable byte form"):
        _ = stage(params={"a": {1, 2}}).key


def test_ancestors_come_first_and_once() -> None:
    root = stage(params={"n": 0})
    left, right = (stage(params={"n": n}, parents={"corpus": root}) for n in (1, 2))
    leaf = stage(params={"n": 3}, parents={"left": left, "right": right})
    order = list(ancestors_first([leaf, right, root]))
    assert [each.params["n"] for each in order] == [0, 1, 2, 3]
