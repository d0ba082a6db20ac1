"""Losses as pure functions: one value per position, so that the caller decides how positions are averaged.

Shape suffixes: B batch, T positions, C classes or features; `...` stands for any leading dimensions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """-log softmax(logits)[target] in nats; logits (..., C), integer targets (...), result (...)."""
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none").view(targets.shape)


def kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(softmax(teacher) || softmax(student)) over the last dimension, in nats; (..., C) twice, result (...)."""
    student_log, teacher_log = F.log_softmax(student, -1), F.log_softmax(teacher, -1)
    return (teacher_log.exp() * (teacher_log - student_log)).sum(-1)


def mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over features of (student - teacher)^2; (..., C) twice, result (...)."""
    return (student - teacher).square().mean(-1)


def cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - cos(student, teacher) over the last dimension; (..., C) twice, result (...)."""
    return 1 - F.cosine_similarity(student, teacher, dim=-1)


def mean_over_positions(values_BT: Tensor, mask_BT: Tensor | None) -> Tensor:
    """Mean over the real positions of each example, then over examples; `mask` is 1 where a position is real.

    Averaging by example first makes a global batch's loss independent of how it is cut into micro-batches.
    """
    if mask_BT is None:
        return values_BT.mean()
    weights_BT = mask_BT.to(values_BT.dtype)
    return ((values_BT * weights_BT).sum(1) / weights_BT.sum(1)).mean()


def at_least_fp32(tensor: Tensor) -> Tensor:
    """The tensor in fp32, or as it is where it is wider."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


BY_NAME = {"mse": mse, "cosine": cosine, "kl": kl}
"""The losses a tap can name."""


def attention_kl(
    student_query: Tensor,
    student_key: Tensor,
    teacher_query: Tensor,
    teacher_key: Tensor,
    *,
    student_scale: float,
    teacher_scale: float,
    visible: Tensor | None,
    row_weights_BT: Tensor,
    block_rows: int = 128,
) -> Tensor:
    """KL(teacher map || student map) of causal attention maps softmax(q k^T scale), weighted by row, mean over heads.

    Queries and keys are (B, H, T, D), with the same B, H, T and possibly different D; `visible` is None (causal) or a
    boolean (B or 1, 1, T, T), true where a row may look; `row_weights_BT` sums to one. The maps are formed
    `block_rows` query rows at a time, and the gradient with respect to the student's scores, p_student - p_teacher,
    is applied at once, so that no T x T map outlives its block.
    """
    value: Tensor = _AttentionKL.apply(  # type: ignore[no-untyped-call]
        student_query, student_key, teacher_query, teacher_key, student_scale, teacher_scale, visible, row_weights_BT,
        block_rows,
    )  # fmt: skip
    return value


class _AttentionKL(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q_s, k_s, q_t, k_t, scale_s, scale_t, visible, row_weights_BT, block_rows):  # type: ignore[no-untyped-def]
        heads, length = q_s.shape[1], q_s.shape[2]
        wide = torch.promote_types(q_s.dtype, torch.float32)
        loss = q_s.new_zeros((), dtype=wide)
        grad_q, grad_k = torch.empty_like(q_s), torch.zeros_like(k_s)
        for start in range(0, length, block_rows):
            rows = slice(start, min(start + block_rows, length))
            seen = slice(0, rows.stop)
            hidden = _hidden_entries(visible, rows, q_s.device)
            log_s = _log_map(q_s[:, :, rows], k_s[:, :, seen], scale_s, hidden)
            log_t = _log_map(q_t[:, :, rows], k_t[:, :, seen], scale_t, hidden)
            p_t = log_t.exp()
            weights = row_weights_BT[:, None, rows, None].to(wide) / heads
            loss += (p_t * (log_t - log_s) * weights).sum()
            grad_scores = (log_s.exp_().sub_(p_t).mul_(weights).mul_(scale_s)).to(q_s.dtype)
            grad_q[:, :, rows] = grad_scores @ k_s[:, :, seen]
            grad_k[:, :, seen] += grad_scores.transpose(-1, -2) @ q_s[:, :, rows]
        ctx.save_for_backward(grad_q, grad_k)
        return loss

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        grad_q, grad_k = ctx.saved_tensors
        return (grad * grad_q).to(grad_q.dtype), (grad * grad_k).to(grad_k.dtype), *(None,) * 7


def _hidden_entries(visible: Tensor | None, rows: slice, device: torch.device) -> Tensor:
    """True where a row of the block may not look: (rows, columns up to the block's end), broadcast over heads."""
    if visible is not None:
        return ~visible[..., rows, : rows.stop]
    columns = torch.arange(rows.stop, device=device)
    return columns[None, :] > torch.arange(rows.start, rows.stop, device=device)[:, None]


def _log_map(query: Tensor, key: Tensor, scale: float, hidden: Tensor) -> Tensor:
    scores = at_least_fp32(query @ key.transpose(-1, -2)) * scale
    return F.log_softmax(scores.masked_fill_(hidden, torch.finfo(scores.dtype).min), -1)
