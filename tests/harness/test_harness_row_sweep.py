"""The sweep of one cell, as its record keeps it."""

from __future__ import annotations

from pathlib import Path

from micro_sweep import recipe, sweep, write

from harness.planner import plan_sweep
from harness.records import named_stages
from harness.reproduce import planned
from harness.row_sweep import inputs_of, row_sweep
from harness.spec import load_sweep
from harness.yaml_loader import dump, parse


def test_every_cells_own_sweep_plans_the_same_stages(plugin: Path, corpus: Path, tmp_path: Path) -> None:
    """Grids of rates, steps of warm-up, fields, controls, absolute sizes, several recipes and seeds."""
    tuned = recipe(
        tokens=5120, learning_rate={"grid": [1e-3, 3e-3]}, warmup_steps=1, losses={"ce": 0.5, "kd": 0.5, "taps": 0.1}
    )
    content = sweep(
        corpus,
        recipes=["none", tuned],
        budgets=[{"params": 9500}],
        methods=["identity", {"svd": {"matrices": "ffn"}}],
        controls=["no_teacher", "random_init"],
        seeds=[0, 3],
        resources={"default": {"cpus": 1, "memory": "1GiB"}},
    )
    plan = plan_sweep(load_sweep(write(tmp_path / "many.yaml", content)), None)
    chosen = [cell for cell in plan.cells if cell.seed == 3 and not cell.refusal]
    assert {cell.control.kind if cell.control else None for cell in chosen} == {None, "no_teacher", "random_init"}
    assert len(chosen) == 5
    for cell in chosen[2:]:
        alone = planned(parse(dump(row_sweep(plan, cell, {})), ""), None)
        (same,) = (each for each in alone.cells if each.row == cell.row)
        keys = {label: stage.key for label, stage in named_stages(same).items()}
        assert keys == {label: stage.key for label, stage in named_stages(cell).items()}


def test_what_a_sweep_reads_from_outside_is_named() -> None:
    found = inputs_of(
        {
            "teacher": {"gguf": {"package": "weights", "file": "x.gguf"}},
            "corpus": {"hub": "owner/texts", "config": "plain"},
            "methods": [{"tq": {}}, "svd", {"svd": None}],
            "tasks": [{"task": "words.token_ppl.v1"}, {"task": "local.token_ppl.v1", "text": "no/such.txt"}],
        }
    )
    assert [(each.key, each.place, each.here) for each in found] == [
        ("tasks.1.text", "no/such.txt", False),
        ("teacher.gguf.package", "package weights", True),
        ("corpus.hub", "owner/texts plain", True),
    ]
