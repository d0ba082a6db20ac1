"""Every divergence, whole and truncated, against the naive formula and autograd in float64."""

import pytest
import torch
import torch.nn.functional as F

from harness.engine.divergences import distillation, divergence_of
from harness.engine.vocabulary import vocabulary_loss
from methods.recipe import Losses

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def naive(name, p, q, beta):
    """From probabilities, term by term."""
    if name == "forward_kl":
        return (q * (q / p).log()).sum(-1)
    if name == "reverse_kl":
        return (p * (p / q).log()).sum(-1)
    if name == "tvd":
        return (p - q).abs().sum(-1) / 2
    m = beta * q + (1 - beta) * p
    return beta * (q * (q / m).log()).sum(-1) + (1 - beta) * (p * (p / m).log()).sum(-1)


def coarse(probabilities, index):
    kept = probabilities.gather(-1, index)
    return torch.cat([kept, 1 - kept.sum(-1, keepdim=True)], -1)


def naive_distillation(losses, student, teacher):
    p, q = (F.softmax(logits / losses.temperature, -1) for logits in (student, teacher))
    if losses.top_k is not None and losses.top_k < q.shape[-1]:
        index = q.topk(losses.top_k, -1).indices
        p, q = coarse(p, index), coarse(q, index)
    return losses.temperature**2 * naive(losses.divergence, p, q, losses.jsd_beta)


def rows(*shape, seed=0):
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


CASES = [
    {"divergence": name, "top_k": top_k} | extra
    for name, extra in (
        ("forward_kl", {}), ("reverse_kl", {}), ("tvd", {}), ("jsd", {}), ("jsd", {"jsd_beta": 0.1}),
    )
    for top_k in (None, 3, 100)
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_values_and_gradients_equal_autograd_of_the_formula(case, temperature):
    losses = Losses(kd=1.0, temperature=temperature, **case)
    student, teacher = rows(6, 11).requires_grad_(), rows(6, 11, seed=1)
    ours = distillation(student, teacher, divergence_of(losses), temperature)
    expected = naive_distillation(losses, student, teacher)
    torch.testing.assert_close(ours, expected, **EXACT)
    weights = rows(6, seed=2)
    (ours_grad,) = torch.autograd.grad((ours * weights).sum(), student)
    (expected_grad,) = torch.autograd.grad((expected * weights).sum(), student)
    torch.testing.assert_close(ours_grad, expected_grad, **EXACT)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("ce", [0.0, 0.3])
@pytest.mark.parametrize("chunk", [1, 5, 100])
def test_over_the_vocabulary_from_hidden_states(case, ce, chunk):
    losses = Losses(ce=ce, kd=0.7, **case)
    student, weight, bias = (rows(*shape, seed=seed) for seed, shape in enumerate([(13, 5), (17, 5), (17,)]))
    teacher, t_weight, t_bias = (rows(*shape, seed=seed) for seed, shape in enumerate([(13, 4), (17, 4), (17,)], 3))
    targets = torch.arange(13)
    trained = [tensor.requires_grad_() for tensor in (student, weight, bias)]
    ours, *parts = vocabulary_loss(
        *trained, targets, teacher_ND=teacher, teacher_weight_VD=t_weight, teacher_bias_V=t_bias, ce=ce, kd=0.7,
        temperature=losses.temperature, divergence=divergence_of(losses), chunk=chunk,
    )  # fmt: skip
    logits = F.linear(student, weight, bias)
    distilled = naive_distillation(losses, logits, F.linear(teacher, t_weight, t_bias)).mean()
    expected = ce * F.cross_entropy(logits, targets) + 0.7 * distilled
    torch.testing.assert_close(ours, expected, **EXACT)
    torch.testing.assert_close(parts[1], distilled.detach(), **EXACT)
    expected_grads = torch.autograd.grad(3 * expected, trained)
    for grad, whole in zip(torch.autograd.grad(3 * ours, trained), expected_grads, strict=True):
        torch.testing.assert_close(grad, whole, **EXACT)


def test_jensen_shannon_is_symmetric_at_one_half_and_total_variation_at_most_one():
    a, b = rows(5, 9), rows(5, 9, seed=1)
    jsd, tvd = (divergence_of(Losses(kd=1.0, divergence=name)) for name in ("jsd", "tvd"))
    torch.testing.assert_close(distillation(a, b, jsd, 1.0), distillation(b, a, jsd, 1.0), **EXACT)
    assert (distillation(50 * a, 50 * b, tvd, 1.0) <= 1 + 1e-12).all()


def test_a_teacher_that_is_certain_gives_finite_gradients():
    student, teacher = rows(4, 9).float().requires_grad_(), 300 * rows(4, 9, seed=1).float()
    for case in CASES:
        losses = Losses(kd=1.0, **case)
        (grad,) = torch.autograd.grad(distillation(student, teacher, divergence_of(losses), 1.0).sum(), student)
        assert grad.isfinite().all(), case
