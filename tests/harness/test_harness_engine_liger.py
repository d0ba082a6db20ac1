"""Liger's kernels against ours. Without a GPU by Triton's interpreter, which is slow: by hand,

pip install liger-kernel triton
TRITON_INTERPRET=1 pytest -m slow tests/harness/test_harness_engine_liger.py
"""

import os
import warnings

import pytest
import torch

from harness.engine import liger
from harness.engine.divergences import divergence_of
from harness.engine.vocabulary import vocabulary_loss
from methods.recipe import Losses


def drawn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_liger_serves_gpus_and_what_it_has_kernels_for():
    cpu = drawn(3, 4, seed=0)
    assert not liger.serves(Losses(kd=1.0), cpu)


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="TRITON_INTERPRET=1 is not set")
@pytest.mark.parametrize("ce", [0.0, 0.3])
@pytest.mark.parametrize(
    "case",
    [
        {"kd": 0.0},
        {"kd": 0.7},
        {"kd": 0.7, "divergence": "reverse_kl"},
        {"kd": 0.7, "divergence": "jsd", "jsd_beta": 0.2},
        {"kd": 0.7, "temperature": 1.0},
    ],
    ids=str,
)
def test_values_and_gradients_are_ours(ce, case):
    warnings.simplefilter("ignore")
    losses = Losses(ce=ce, **case)
    student, weight = (drawn(*shape, seed=seed).requires_grad_() for seed, shape in enumerate([(50, 16), (33, 16)]))
    teacher, t_weight = (drawn(*shape, seed=seed) for seed, shape in enumerate([(50, 16), (33, 16)], 2))
    targets = torch.randint(33, (50,), generator=torch.Generator().manual_seed(4))
    theirs = liger.vocabulary_loss(
        student, weight, targets, teacher_ND=teacher, teacher_weight_VD=t_weight, losses=losses
    )
    ours = vocabulary_loss(
        student, weight, None, targets, teacher_ND=teacher, teacher_weight_VD=t_weight, ce=ce, kd=losses.kd,
        temperature=losses.temperature, divergence=divergence_of(losses),
    )  # fmt: skip
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-6)
    if ce or losses.kd:
        grads = (torch.autograd.grad(2 * loss[0], (student, weight)) for loss in (theirs, ours))
        torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-6)
