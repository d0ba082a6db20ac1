"""The shipped GLUE sweep, and the averages that it is for."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.planner import plan_sweep
from harness.spec import load_sweep
from results.averages import AVERAGES, GLUE
from tasks import registry
from tasks.glue_server import FILES

SWEEP = Path(__file__).parents[2] / "sweeps" / "glue.yaml"


def test_averages_are_over_tasks_and_metrics_that_there_are() -> None:
    names = [name for name in registry.names() if name.startswith("glue.")]
    assert {name: tuple(metric.name for metric in registry.load(name).metrics) for name in names} == GLUE
    assert all(set(metrics) <= set(GLUE[task]) for average in AVERAGES for task, metrics in average.tasks.items())


def test_it_measures_every_task_with_three_seeds_and_predicts_every_test_set() -> None:
    sweep = load_sweep(SWEEP)
    assert sorted(choice.task for choice in sweep.tasks) == sorted(GLUE)
    assert {file.protocol for file in FILES.values()} == {choice.task for choice in sweep.tasks if choice.predict_test}
    assert sweep.seeds == [0, 1, 2]
    assert sweep.finetune is not None
    assert len(sweep.finetune.rates) == 3


@pytest.mark.mirror
def test_it_plans_from_the_teacher_s_configuration_alone(mirror: Path) -> None:
    plan = plan_sweep(load_sweep(SWEEP), mirror)
    assert len(plan.cells) == 18
    assert not [cell.refusal for cell in plan.cells if cell.refusal]
    # Of a model, task and seed three trials and the training; one fine-tuning of each of six models.
    assert len([stage for stage in plan.stages if stage.name == "finetune"]) == 6 * 9 * 3 * 4
