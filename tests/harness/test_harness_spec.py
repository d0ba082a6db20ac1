"""The sweep file: what it accepts, and what it says about what it does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from micro_sweep import recipe, sweep, weighin, write

from harness.errors import SpecError
from harness.spec import Sweep, load_sweep


@pytest.fixture
def load(tmp_path: Path) -> Any:
    """Reads a micro sweep with changes and overrides."""

    def loaded(*overrides: str, **changes: Any) -> Sweep:
        return load_sweep(write(tmp_path / "sweep.yaml", sweep("texts", **changes)), overrides)

    return loaded


def pretrained(**changes: Any) -> dict[str, Any]:
    return {"name": "t", "pretrain": {"config": {"vocab_size": 300}, "recipe": recipe()} | changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": []}, "method: unknown key; did you mean 'methods'?"),
        ({"teacher": pretrained() | {"nme": "x"}}, "teacher.nme: unknown key; did you mean 'name'?"),
        ({"teacher": pretrained(famly="gpt2")}, "teacher.pretrain.famly: unknown key; did you mean 'family'?"),
        (
            {"teacher": pretrained(recipe=recipe(learning_rte=1.0))},
            "teacher.pretrain.recipe.learning_rte: unknown key; did you mean 'learning_rate'?",
        ),
        ({"corpus": {"directry": "x"}}, "corpus.directry: unknown key; did you mean 'directory'?"),
        ({"budgets": [{"param": 0.8}]}, "budgets.0.param: unknown key; did you mean 'params'?"),
        (
            {"recipes": ["none", recipe(losses={"temprature": 2})]},
            "recipes.1.shared.losses.temprature: unknown key; did you mean 'temperature'?",
        ),
        (
            {"tasks": [{"task": "x", "trainrows": 2}]},
            "tasks.0.trainrows: unknown key; did you mean 'train_rows'?",
        ),
        (
            {"finetune": {"learning_rate": 1e-3, "epoch": 2}},
            "finetune.epoch: unknown key; did you mean 'epochs'?",
        ),
        ({"control": ["no_teacher"]}, "control: unknown key; did you mean 'controls'?"),
        ({"resources": {"distil": {"cpus": 1}}}, "resources.distil: unknown key; did you mean 'distill'?"),
        ({"resources": {"distill": {"cpu": 1}}}, "resources.distill.cpu: unknown key; did you mean 'cpus'?"),
        (
            {"teacher": {"name": "t", "gguf": {"fil": "x"}}},
            "teacher.gguf.fil: unknown key; did you mean 'file'?",
        ),
    ],
)
def test_an_unknown_key_at_any_depth_names_the_nearest(load: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        load(**changes)
    first = str(caught.value).splitlines()[0]
    assert first.endswith(f"sweep.yaml: {message}")
    assert len(str(caught.value).splitlines()) <= 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"corpus": None}, "corpus: needed, because this sweep trains on text"),
        ({"corpus": {"directory": "x", "embedded": True}}, "corpus: give exactly one of embedded, hub, directory"),
        ({"budgets": []}, "budgets: List should have at least 1 item"),
        ({"budgets": [{"params": 0.8, "macs": 0.5}]}, "budgets.0: a budget is one of params, macs, bytes"),
        ({"budgets": [{"params": -1.0}]}, "budgets.0: a budget is above zero"),
        ({"budgets": [{"params": "0.8"}]}, "budgets.0.params"),
        ({"methods": [{"svd": {}, "kronecker": {}}]}, "methods.0: a method is a name, or `name: {field: value}`"),
        ({"seeds": [0, 0]}, "seeds: the same one twice"),
        ({"seeds": 0}, "seeds: Input should be a valid array"),
        ({"seeds": [-1]}, "seeds.0: Input should be greater than or equal to 0"),
        ({"tasks": ["x", "x"]}, "tasks: the same one twice"),
        ({"teacher": {"name": "t"}}, "teacher: exactly one of pretrain, model, directory, gguf is needed; given: none"),
        (
            {"teacher": {"name": "t", "directory": "d", "model": "m"}},
            "teacher: exactly one of pretrain, model, directory, gguf is needed; given: ['model', 'directory']",
        ),
        ({"recipes": [recipe(tokens="600q")]}, "recipes.0.shared.tokens: Input should be a valid integer"),
        ({"recipes": [recipe(learning_rate="fast")]}, "recipes.0.shared.learning_rate: Input should be a valid number"),
        ({"recipes": ["shard"]}, "recipes.0.kind: Input should be 'none', 'shared' or 'paper'"),
        ({"resources": {"distill": {"memory": "8GB"}}}, "resources.distill.memory: Input should be a valid integer"),
        ({"name": "a/b"}, "name: String should match pattern"),
        ({"controls": ["no_techer"]}, "controls.0: 'no_techer' is no control; did you mean 'no_teacher'?"),
        ({"controls": ["no_teacher", "no_teacher"]}, "controls: the same one twice"),
        ({"controls": ["random_init"], "recipes": ["none"]}, "controls: twins of cells that train, and every recipe"),
    ],
)
def test_a_wrong_value_is_named(load: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        load(**changes)
    assert f"sweep.yaml: {message}" in str(caught.value)


def test_counts_are_written_in_full_or_short(load: Any) -> None:
    for text, number in (("600k", 600_000), ("0.6M", 600_000), (6e5, 600_000), (600_000, 600_000), ("2B", 2 * 10**9)):
        assert load(recipes=[recipe(tokens=text)]).recipes[0].shared.tokens == number


def test_a_budget_is_a_fraction_or_a_count(load: Any) -> None:
    found = load(budgets=[{"params": 0.66}, {"params": "82M"}, {"macs": 0.5}, {"bytes": 1000}]).budgets
    assert [(choice.unit, choice.value) for choice in found] == [
        ("params", 0.66),
        ("params", 82e6),
        ("macs", 0.5),
        ("bytes", 1000.0),
    ]


def test_lists_have_short_forms(load: Any) -> None:
    found = load(
        methods=["identity", {"svd": {"matrices": "ffn"}}, {"kronecker": None}],
        tasks=["a.b.v1", {"task": "a.c.v1", "train_rows": 10}],
        recipes=["none", "paper", recipe()],
        seeds=3,
    )
    assert [(method.name, method.fields) for method in found.methods] == [
        ("identity", {}),
        ("svd", {"matrices": "ffn"}),
        ("kronecker", {}),
    ]
    assert [(task.task, task.train_rows) for task in found.tasks] == [("a.b.v1", None), ("a.c.v1", 10)]
    assert [choice.kind for choice in found.recipes] == ["none", "paper", "shared"]
    assert found.seeds == [0, 1, 2]


def test_resources_fall_back_to_the_default(load: Any) -> None:
    found = load(resources={"default": {"cpus": 2}, "distill": {"workers": 4, "memory": "1.5GiB"}})
    assert found.execution("teacher").cpus == 2
    assert found.execution("distill").workers == 4
    assert found.execution("distill").cpus == 1
    assert found.execution("distill").memory_bytes == 3 * 2**29


@pytest.mark.parametrize(
    ("override", "place", "expected"),
    [
        ("seeds=2", "seeds", [0, 1]),
        ("seeds=[4, 7]", "seeds", [4, 7]),
        ("teacher.pretrain.recipe.learning_rate=1e-4", "teacher.pretrain.recipe.learning_rate", 1e-4),
        ("teacher.pretrain.seed=5", "teacher.pretrain.seed", 5),
        ("resources.distill.workers=2", "resources.distill.workers", 2),
    ],
)
def test_set_changes_one_key(load: Any, override: str, place: str, expected: Any) -> None:
    at: Any = load(override).model_dump()
    for part in place.split("."):
        at = at[part]
    assert at == expected


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seeds", "--set seeds: write key=value, as in --set seeds=3"),
        ("name.x=1", "--set name.x=1: name.x is not a key of a mapping"),
        ("seeds=[1", "--set seeds: line 1, column 3"),
        ("description=a: b: c", "--set description: line 1, column 5: mapping values are not allowed here"),
        ("seds=3", "sweep.yaml: seds: unknown key; did you mean 'seeds'?"),
        ("teacher.pretrain.sed=3", "sweep.yaml: teacher.pretrain.sed: unknown key; did you mean 'seed'?"),
    ],
)
def test_a_wrong_set_is_refused(load: Any, override: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        load(override)
    assert message in str(caught.value)


def test_the_schema_for_editors_accepts_the_sweeps_that_ship() -> None:
    schema = weighin("schema").data
    jsonschema.Draft202012Validator.check_schema(schema)
    assert set(schema["properties"]) == set(Sweep.model_fields)
    loaded = load_sweep(Path(__file__).parents[2] / "sweeps" / "demo.yaml")
    jsonschema.validate(json.loads(loaded.model_dump_json()), schema)
