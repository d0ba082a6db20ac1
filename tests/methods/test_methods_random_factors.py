"""Students with what the method made drawn at random: which tensors move, how large they are, what stays."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from methods import student, tiny
from methods.distilgpt2 import DistilGPT2
from methods.dsee import Dsee
from methods.embedding_svd import EmbeddingSvd
from methods.families import architecture
from methods.interface import Budget, Method, Plan
from methods.kronecker import Kronecker
from methods.random_factors import redraw
from methods.student_config import surgery_of
from methods.svd import Svd
from methods.tensor_gpt import TensorGpt
from methods.tensor_train import TensorTrain
from methods.tq import TQCompressor

FACTORISED = [
    (Svd(), 0.7),
    (Kronecker(embedding=True), 0.7),
    (Kronecker(terms=2, scales=True), 0.8),
    (TensorTrain(), 0.8),
    (TQCompressor(), 0.8),
    (Dsee(), 0.8),
    (Dsee(mask="structured"), 0.8),
    (EmbeddingSvd(), 0.8),
    (TensorGpt(), 0.8),
]


def made(method: Method, value: float, label: str = "gpt2") -> tuple[Plan, Any]:
    """A plan at the budget, or at the nearest size there is, and its student as loaded from disk."""
    teacher = tiny.teacher(label)
    plan = method.plan(teacher.config, Budget(value=value))
    if not isinstance(plan, Plan):
        assert plan.nearest is not None
        plan = method.plan(teacher.config, Budget(value=plan.nearest))
    assert isinstance(plan, Plan)
    return plan, method.compress(teacher, plan, seed=0, statistics={})


def drawn(model: Any, plan: Plan, seed: int = 0, **options: Any) -> Any:
    again = copy.deepcopy(model)
    redraw(again, plan, seed=seed, **options)
    return again


@pytest.mark.parametrize(("method", "value"), FACTORISED, ids=lambda each: str(each)[:40])
def test_factors_that_train_are_drawn_and_all_else_stays(method: Method, value: float) -> None:
    plan, model = made(method, value)
    twin = drawn(model, plan)
    assert plan.surgery
    assert surgery_of(twin.config) == surgery_of(model.config)
    for name, before in model.named_parameters():
        after = twin.get_parameter(name)
        moves = name.rpartition(".")[0] in plan.surgery and not name.endswith(".bias") and before.requires_grad
        assert after.shape == before.shape
        assert bool((after != before).all()) if moves else torch.equal(after, before), name
    for name, buffer in model.named_buffers():
        assert torch.equal(twin.get_buffer(name), buffer), name


@torch.no_grad()
@pytest.mark.parametrize(("method", "value"), FACTORISED, ids=lambda each: str(each)[:40])
def test_what_is_drawn_has_the_size_of_a_model_from_scratch(method: Method, value: float) -> None:
    plan, model = made(method, value)
    twin = drawn(model, plan)
    for path in plan.surgery:
        layer = twin.get_submodule(path)
        weight = layer.materialise().double()
        for name, parameter in layer.named_parameters():
            if parameter.requires_grad and name != "bias":
                parameter.zero_()
        rms = float((weight - layer.materialise().double()).square().mean().sqrt())
        assert rms == pytest.approx(model.config.initializer_range, rel=2e-3), path


def test_the_factors_of_a_layer_share_one_standard_deviation() -> None:
    plan, model = made(Svd(), 0.7)
    twin = drawn(model, plan)
    path, spec = next(iter(plan.surgery.items()))
    layer = twin.get_submodule(path)
    expected = model.config.initializer_range**0.5 * spec["rank"] ** -0.25  # std(L R) = s^2 sqrt(r)
    assert float(layer.left.detach().std()) == pytest.approx(expected, rel=0.15)
    assert float(layer.right.detach().std()) == pytest.approx(expected, rel=0.15)


def test_the_seed_decides() -> None:
    plan, model = made(Svd(), 0.7)
    one, same, other = (student_bits(drawn(model, plan, seed)) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def student_bits(model: Any) -> torch.Tensor:
    return torch.cat([each.detach().flatten() for each in model.parameters()])


@pytest.mark.parametrize("label", ["gpt2", "llama"])
def test_without_surgery_the_blocks_are_those_of_a_model_from_scratch(label: str) -> None:
    plan, model = made(DistilGPT2(kept_layers=1), 0.6, label)
    twin = drawn(model, plan)
    (block,) = architecture(twin.config).blocks
    for name, before in model.named_parameters():
        after = twin.get_parameter(name)
        if not name.startswith(f"{block}."):
            assert torch.equal(after, before), name
        elif name.endswith("bias"):
            assert not after.any(), name
        elif after.dim() == 1:
            assert bool((after == 1).all()), name
        else:
            assert float(after.detach().std()) == pytest.approx(model.config.initializer_range, rel=0.2), name


def test_a_later_phase_keeps_what_the_one_before_trained() -> None:
    plan, model = made(Svd(), 0.7)
    first = dict(list(plan.surgery.items())[:2])
    twin = drawn(model, plan, carried=first)
    for path in plan.surgery:
        assert torch.equal(twin.get_submodule(path).left, model.get_submodule(path).left) == (path in first)


def test_a_plan_that_replaces_nothing_changes_nothing() -> None:
    plan, model = made(Svd(), 1.0)
    assert not plan.surgery
    assert torch.equal(student_bits(drawn(model, plan)), student_bits(model))
    assert student.count_params(model) == plan.size
