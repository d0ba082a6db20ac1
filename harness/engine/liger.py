"""The vocabulary-sized losses by Liger's Triton kernels (Hsu et al., arXiv 2410.10989), where they are installed.

On a GPU they do in one kernel what `harness.engine.vocabulary` does in several, a chunk at a time as well; values and
gradients agree up to rounding. `pip install liger-kernel` is all that it takes.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from methods.recipe import Losses


def serves(losses: Losses, student_ND: Tensor, *biases: Tensor | None) -> bool:
    """True where Liger has kernels for these losses: on a GPU, without biases and without a truncated teacher."""
    known = losses.divergence != "tvd" and losses.top_k is None and all(bias is None for bias in biases)
    return known and student_ND.is_cuda and _installed()


@cache
def _installed() -> bool:
    return all(find_spec(name) is not None for name in ("liger_kernel", "triton"))


def vocabulary_loss(
    student_ND: Tensor,
    student_weight_VD: Tensor,
    targets_N: Tensor,
    *,
    teacher_ND: Tensor | None,
    teacher_weight_VD: Tensor | None,
    losses: Losses,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `harness.engine.vocabulary.vocabulary_loss`: the weighted loss, its CE and its T^2 D, the two detached."""
    from liger_kernel.ops.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyFunction
    from liger_kernel.ops.fused_linear_jsd import LigerFusedLinearJSDFunction

    zero = torch.zeros((), device=student_ND.device)
    cross_entropy = distilled = zero
    if losses.ce:
        found = LigerFusedLinearCrossEntropyFunction.apply(
            student_ND, student_weight_VD, targets_N, None, None, -100, 0.0, 0.0, "mean", None, False, torch.float32
        )
        cross_entropy = found[0] if isinstance(found, tuple) else found
    if losses.kd and teacher_ND is not None:
        beta = {"forward_kl": 0.0, "reverse_kl": 1.0, "jsd": losses.jsd_beta}[losses.divergence]
        distilled = losses.temperature**2 * LigerFusedLinearJSDFunction.apply(
            student_ND, student_weight_VD, teacher_ND, teacher_weight_VD, None, beta, -100, losses.temperature,
            torch.float32,
        )  # fmt: skip
    total = losses.ce * cross_entropy + (losses.kd if teacher_ND is not None else 0.0) * distilled
    return total, cross_entropy.detach(), distilled.detach()
