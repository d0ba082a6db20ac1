"""Divergences of a student's distribution p from a teacher's q, with their gradients in closed form.

Each function takes log p and log q, (N, C) each, and gives the divergence of each row in nats, (N,), and its gradient
with respect to the logits that p is the softmax of, (N, C). With g = dD/dp that gradient is p (g - sum p g). Inputs may
be overwritten. Shape suffixes: N positions, C classes or tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from methods.recipe import Losses

Divergence = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def forward_kl(log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
    """KL(q || p) = sum q (log q - log p); gradient p - q (Hinton et al., arXiv 1503.02531)."""
    q = log_q.exp()
    values_N = (log_q.sub_(log_p).mul_(q)).sum(-1)
    return values_N, log_p.exp_().sub_(q)


def reverse_kl(log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
    """KL(p || q) = sum p (log p - log q); gradient p (log p - log q - KL) (MiniLLM, Gu et al., arXiv 2306.08543)."""
    p = log_p.exp()
    log_ratio = log_p.sub_(log_q)
    values_N = (log_ratio * p).sum(-1)
    return values_N, log_ratio.sub_(values_N[:, None]).mul_(p)


def jensen_shannon(log_p: Tensor, log_q: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """beta KL(q || m) + (1 - beta) KL(p || m) with m = beta q + (1 - beta) p (GKD, Agarwal et al., arXiv 2306.13649).

    Gradient (1 - beta) p (log(p / m) - KL(p || m)); beta is strictly between 0 and 1.
    """
    log_m = torch.logaddexp(log_q + math.log(beta), log_p + math.log1p(-beta))
    p, q = log_p.exp(), log_q.exp()
    log_ratio = log_p.sub_(log_m)
    of_student_N = (log_ratio * p).sum(-1)
    values_N = beta * (log_q.sub_(log_m).mul_(q)).sum(-1) + (1 - beta) * of_student_N
    return values_N, log_ratio.sub_(of_student_N[:, None]).mul_(p).mul_(1 - beta)


def total_variation(log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
    """1/2 sum |p - q|; gradient p (s - sum p s) / 2 with s = sign(p - q) (Wen et al., arXiv 2307.15190)."""
    p, q = log_p.exp_(), log_q.exp_()
    difference = p - q
    values_N = difference.abs().sum(-1) / 2
    sign = difference.sign_()
    return values_N, sign.sub_((sign * p).sum(-1, keepdim=True)).mul_(p).div_(2)


def truncated(log_p: Tensor, log_q: Tensor, divergence: Divergence, top_k: int) -> tuple[Tensor, Tensor]:
    """`divergence` over the teacher's `top_k` likeliest classes and one more that holds the mass of all others.

    What a stored teacher of k logits and a tail can teach. Within the tail the gradient is shared out by p.
    """
    if top_k >= log_p.shape[-1]:
        return divergence(log_p, log_q)
    index_NK = log_q.topk(top_k, -1).indices
    rest_p = log_p.scatter(-1, index_NK, -torch.inf)
    tail_p_N1 = rest_p.logsumexp(-1, keepdim=True)
    coarse_q = torch.cat([log_q.gather(-1, index_NK), _tail(log_q, index_NK)], -1)
    coarse_p = torch.cat([log_p.gather(-1, index_NK), tail_p_N1], -1)
    values_N, grad = divergence(coarse_p, coarse_q)
    within = rest_p.sub_(tail_p_N1).exp_().mul_(grad[:, -1:])
    return values_N, within.scatter_(-1, index_NK, grad[:, :-1])


def _tail(log_NC: Tensor, index_NK: Tensor) -> Tensor:
    return log_NC.scatter(-1, index_NK, -torch.inf).logsumexp(-1, keepdim=True)


BY_NAME: Mapping[str, Divergence] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "tvd": total_variation,
}
"""Those without a parameter, by their names in a recipe."""


def divergence_of(losses: Losses) -> Divergence:
    """The divergence that a recipe's losses name, truncated to the teacher's `top_k` where they say so."""
    named = partial(jensen_shannon, beta=losses.jsd_beta) if losses.divergence == "jsd" else BY_NAME[losses.divergence]
    return named if losses.top_k is None else partial(truncated, divergence=named, top_k=losses.top_k)


def distillation(student_NC: Tensor, teacher_NC: Tensor, divergence: Divergence, temperature: float) -> Tensor:
    """T^2 D(softmax(teacher / T), softmax(student / T)) of each row, (N,), differentiable in the student's logits.

    The factor T^2 keeps the gradient's size about the same at every temperature (Hinton et al., section 2).
    """
    values: Tensor = _Distillation.apply(student_NC, teacher_NC, divergence, temperature)  # type: ignore[no-untyped-call]
    return values


class _Distillation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, divergence: Divergence, temperature: float) -> Tensor:
        log_p, log_q = (F.log_softmax(logits / temperature, -1) for logits in (student, teacher))
        values_N, grad_NC = divergence(log_p, log_q)
        ctx.save_for_backward(grad_NC * temperature)
        return temperature**2 * values_N

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor | None, ...]:
        (grad_NC,) = ctx.saved_tensors
        return grad_N[:, None] * grad_NC, None, None, None
