"""Models on the meta device against the same models with weights."""

from __future__ import annotations

import pytest

from harness.engine.flops import forward_flops_per_token
from harness.meta_models import meta_student, meta_teacher
from methods import registry, student, tiny
from methods.interface import Budget, Plan
from methods.student_config import surgery_of

LENGTH = 32


@pytest.mark.parametrize("label", ["gpt2", "llama-untied"])
def test_a_teacher_counts_as_with_weights(label: str) -> None:
    real, empty = tiny.teacher(label), meta_teacher(tiny.config(label))
    assert empty.device.type == "meta"
    assert {name: p.shape for name, p in empty.named_parameters()} == {
        name: p.shape for name, p in real.named_parameters()
    }
    assert forward_flops_per_token(empty, LENGTH) == forward_flops_per_token(real, LENGTH)


@pytest.mark.parametrize("label", ["gpt2", "llama-untied"])
@pytest.mark.parametrize("name", [n for n in registry.names() if registry.resolve(n).startswith("methods.")])
def test_a_student_counts_as_with_weights(name: str, label: str) -> None:
    config, method = tiny.config(label), registry.load(name)()
    plans = [method.plan(config, Budget(value=size) if method.budgeted else None) for size in (0.5, 0.8, 0.9, 1.0)]
    plan = next(plan for plan in plans if isinstance(plan, Plan))
    real = student.build(config, plan.surgery, changes=plan.config_changes, trained=plan.trained)
    empty = meta_student(config, plan)
    assert empty.device.type == "meta"
    assert forward_flops_per_token(empty, LENGTH) == forward_flops_per_token(real, LENGTH)


def test_a_student_s_configuration_gives_the_student() -> None:
    config = tiny.config("gpt2")
    plan = registry.load("svd")().plan(config, Budget(value=0.8))
    assert isinstance(plan, Plan)
    made = meta_student(config, plan)
    assert surgery_of(meta_teacher(made.config).config) == surgery_of(made.config) != {}
