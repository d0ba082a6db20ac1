"""Losses against numpy and scipy in float64."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from harness.engine import losses


def rows(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def test_cross_entropy_is_minus_log_probability():
    logits, targets = rows(0, 5, 7), np.array([0, 6, 3, 3, 1])
    ours = losses.cross_entropy(torch.tensor(logits), torch.tensor(targets))
    np.testing.assert_allclose(ours, -log_softmax(logits, -1)[np.arange(5), targets], atol=1e-12)


def test_mse_and_cosine_are_per_position():
    student, teacher = rows(0, 2, 3, 5), rows(1, 2, 3, 5)
    np.testing.assert_allclose(
        losses.mse(torch.tensor(student), torch.tensor(teacher)), ((student - teacher) ** 2).mean(-1), atol=1e-12
    )
    norms = np.linalg.norm(student, axis=-1) * np.linalg.norm(teacher, axis=-1)
    expected = 1 - (student * teacher).sum(-1) / norms
    np.testing.assert_allclose(losses.cosine(torch.tensor(student), torch.tensor(teacher)), expected, atol=1e-12)


def test_padding_does_not_count_and_examples_count_alike():
    values = torch.tensor([[1.0, 3.0, 99.0], [4.0, 99.0, 99.0]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert losses.mean_over_positions(values, mask).item() == pytest.approx(3.0)
    assert losses.mean_over_positions(values, None).item() == pytest.approx(values.mean().item())


def dense_attention_kl(q_s, k_s, q_t, k_t, hidden, weights_BT):
    log_s = (q_s @ k_s.transpose(-1, -2) * 0.5).masked_fill(hidden, -torch.inf).log_softmax(-1)
    log_t = (q_t @ k_t.transpose(-1, -2) * 0.3).masked_fill(hidden, -torch.inf).log_softmax(-1)
    terms = torch.where(hidden, 0.0, log_t.exp() * (log_t - log_s))
    return (terms.sum(-1).mean(1) * weights_BT).sum()


@pytest.mark.parametrize("masked", [False, True])
def test_attention_kl_in_blocks_equals_whole_maps(masked):
    generator = torch.Generator().manual_seed(0)
    q_s, k_s = (
        torch.randn(2, 3, 11, 4, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2)
    )
    q_t, k_t = (torch.randn(2, 3, 11, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    weights_BT = torch.rand(2, 11, generator=generator, dtype=torch.float64)
    weights_BT /= weights_BT.sum()
    causal = torch.ones(11, 11).tril().bool()
    visible = causal & (torch.arange(11) < torch.tensor([11, 7])[:, None])[:, None, None] if masked else None
    hidden = ~(visible if masked else causal)
    expected = dense_attention_kl(q_s, k_s, q_t, k_t, hidden, weights_BT)
    expected_grads = torch.autograd.grad(expected, (q_s, k_s))
    ours = losses.attention_kl(
        q_s, k_s, q_t, k_t, student_scale=0.5, teacher_scale=0.3, visible=visible, row_weights_BT=weights_BT,
        block_rows=4,
    )  # fmt: skip
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)
    for grad, whole in zip(torch.autograd.grad(3 * ours, (q_s, k_s)), expected_grads, strict=True):
        torch.testing.assert_close(grad, 3 * whole, rtol=1e-10, atol=1e-10)


NAIVE = {
    "mse": lambda s, t: ((s - t) ** 2).sum(-1) / s.shape[-1],
    "cosine": lambda s, t: 1 - (s * t).sum(-1) / (s.pow(2).sum(-1).sqrt() * t.pow(2).sum(-1).sqrt()),
    "kl": lambda s, t: (t.softmax(-1) * (t.softmax(-1) / s.softmax(-1)).log()).sum(-1),
}


@pytest.mark.parametrize("name", NAIVE)
def test_the_losses_of_taps_and_their_gradients_equal_the_naive_formula(name):
    student, teacher = (torch.tensor(rows(seed, 2, 3, 5), requires_grad=True) for seed in (0, 1))
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    ours = losses.mean_over_positions(losses.BY_NAME[name](student, teacher), mask)
    naive = NAIVE[name](student, teacher)
    expected = ((naive[0, 0] + naive[0, 1]) / 2 + naive[1, 0]) / 2
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)
    grads = (torch.autograd.grad(loss, student)[0] for loss in (ours, expected))
    torch.testing.assert_close(*grads, rtol=1e-10, atol=1e-10)


def test_cross_entropys_gradient_equals_softmax_minus_one_hot():
    logits, targets = torch.tensor(rows(0, 5, 7), requires_grad=True), torch.tensor([0, 6, 3, 3, 1])
    (grad,) = torch.autograd.grad(losses.cross_entropy(logits, targets).sum(), logits)
    expected = logits.detach().softmax(-1) - torch.nn.functional.one_hot(targets, 7)
    torch.testing.assert_close(grad, expected, rtol=1e-10, atol=1e-10)
