"""A row's id is what people write down: it names what was computed, and nothing about when, where or beside what."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from micro_sweep import recipe, sweep, write

from harness.cells import SweepPlan
from harness.planner import plan_sweep
from harness.spec import load_sweep

METHODS = ["identity", {"svd": {"matrices": ["all", "ffn"]}}]
SPEC: Mapping[str, Any] = {
    "methods": METHODS,
    "budgets": [{"params": 0.8}, {"params": 0.9}],
    "recipes": ["none", recipe()],
    "controls": ["random_init"],
    "seeds": 2,
}


@pytest.fixture(scope="module")
def ids(plugin: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, str]]:
    """What each row of a sweep is -> its id."""

    @cache
    def usual() -> dict[str, str]:
        return of(corpus, name="micro")

    def of(directory: Path = corpus, /, file: str = "sweep.yaml", **changes: Any) -> dict[str, str]:
        if not changes and directory == corpus:
            return usual()
        path = write(tmp_path_factory.mktemp("sweep") / file, sweep(directory, **{**SPEC, **changes}))
        return named(plan_sweep(load_sweep(path), None))

    return of


def named(plan: SweepPlan) -> dict[str, str]:
    found = {}
    for each in plan.cells:
        fields = ",".join(f"{name}={value}" for name, value in sorted(each.contender.fields.items()))
        control = each.control.kind if each.control else ""
        name = f"{each.contender.name} {fields} {each.budget} {each.recipe_kind} {control}"
        assert found.setdefault(name, each.row) == each.row, "the seeds of a row have one id"
    return found


def reversed_keys(value: Any) -> Any:
    """The same YAML with the keys of every mapping in the opposite order."""
    if isinstance(value, Mapping):
        return {key: reversed_keys(value[key]) for key in reversed(list(value))}
    return [reversed_keys(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "changes",
    [
        {
            "methods": METHODS[::-1],
            "budgets": [{"params": 0.9}, {"params": 0.8}],
            "recipes": [reversed_keys(recipe()), "none"],
        },
        {"seeds": [7, 3], "name": "another-name", "file": "elsewhere.yaml", "tasks": ["words.token_ppl.v1"]},
        {
            "resources": {"default": {"cpus": 2}, "distill": {"workers": 2, "micro_batch": 1, "zero_stage": 2}},
            "recipes": ["none", {**recipe(), "deepspeed": {"zero_optimization": {"overlap_comm": True}}}],
        },
    ],
    ids=["order", "seeds and names", "execution"],
)
def test_order_seeds_names_and_execution_are_not_in_it(ids: Any, changes: dict[str, Any]) -> None:
    assert ids(**changes) == ids()


def test_the_time_and_the_place_of_the_text_are_not_in_it(
    ids: Any, corpus: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    expected = ids()
    moved = tmp_path / "moved"
    shutil.copytree(corpus, moved)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 1e9)
    assert ids(moved) == expected


def test_what_is_computed_is_in_it(ids: Any) -> None:
    before, after = ids(), ids(recipes=["none", {**recipe(), "learning_rate": 2e-3}])
    assert before.keys() == after.keys()
    trained = {name for name in before if " shared " in name}
    assert trained
    assert {name for name in before if before[name] != after[name]} == trained
    assert len(set(before.values())) == len(before)
