"""The vocabulary-sized loss terms, computed in chunks of positions from hidden states.

Shape suffixes: N positions of a micro-batch, D width of a hidden state, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.engine import liger
from harness.engine.divergences import Divergence, divergence_of, forward_kl
from harness.stage import StageFailure
from methods.recipe import Losses

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHUNK_ELEMENTS = {"cpu": 2**23, "cuda": 2**25}
"""Logits of one model that exist at once: a chunk has this many divided by V positions. Small chunks read and write the
weight's gradient more often than they compute."""
BLOCK_ELEMENTS = {"cpu": 2**18, "cuda": 2**25}
"""Logits that the softmax and the divergence work on at a time: on a CPU so few that they stay in its cache."""


def vocabulary_loss(
    student_ND: Tensor,
    student_weight_VD: Tensor,
    student_bias_V: Tensor | None,
    targets_N: Tensor,
    *,
    teacher_ND: Tensor | None = None,
    teacher_weight_VD: Tensor | None = None,
    teacher_bias_V: Tensor | None = None,
    ce: float,
    kd: float,
    temperature: float,
    divergence: Divergence = forward_kl,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """ce * CE + kd * T^2 D(teacher, student), and the two terms by themselves (detached), as means over positions.

    With z = h W^T + b, p = softmax(z), and p_T, q_T the student's and teacher's softmax at temperature T:

        CE = -log p[target]      D = D(q_T, p_T), one of `harness.engine.divergences`
        dloss/dz = ce (p - onehot(target)) + kd T dD/d(z / T)

    The gradient is applied to hidden states, weight and bias chunk by chunk during the forward pass, so that logits
    (N x V) of either model never exist at once, and nothing is computed twice. Gradients reach whatever the weight was
    computed from. Terms with weight zero are not computed (reported as 0).
    """
    terms = Terms(ce, kd, temperature, divergence)
    chunk = chunk or max(1, CHUNK_ELEMENTS[student_ND.device.type] // student_weight_VD.shape[0])
    values: tuple[Tensor, Tensor, Tensor] = _VocabularyLoss.apply(  # type: ignore[no-untyped-call]
        student_ND, student_weight_VD, student_bias_V, targets_N, teacher_ND, teacher_weight_VD, teacher_bias_V,
        terms, min(chunk, len(targets_N)),
    )  # fmt: skip
    return values


class Terms(NamedTuple):
    """What is computed from logits, and how much it weighs."""

    ce: float
    kd: float
    temperature: float
    divergence: Divergence


class _VocabularyLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, student, weight, bias, targets, teacher, t_weight, t_bias, terms, chunk):  # type: ignore[no-untyped-def]
        count = len(targets)
        exact = torch.float64 if student.device.type == "cpu" else torch.float32
        sums = torch.zeros(2, dtype=exact, device=student.device)
        grad_student = torch.empty_like(student)
        grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        grad_bias = torch.zeros_like(bias) if bias is not None else None
        # Two buffers for all chunks: fresh memory of this size costs more than the arithmetic done in it.
        buffers = [student.new_empty(chunk, weight.shape[0]) for _ in range(2 if terms.kd else 1)]
        for start in range(0, count, chunk):
            part = slice(start, start + chunk)
            logits = _logits(student[part], weight, bias, buffers[0])
            teacher_logits = _logits(teacher[part], t_weight, t_bias, buffers[1]) if terms.kd else None
            grad = _to_gradient(logits, targets[part], teacher_logits, terms, sums, 1 / count)
            torch.mm(grad, weight, out=grad_student[part])
            if grad_weight is not None:
                grad_weight.addmm_(grad.t(), student[part])
            if grad_bias is not None:
                grad_bias += grad.sum(0)
        ctx.save_for_backward(grad_student, grad_weight, grad_bias)
        means = (sums / count).to(torch.promote_types(student.dtype, torch.float32))
        cross_entropy, distilled = means.unbind()
        total = terms.ce * cross_entropy + terms.kd * distilled
        parts = cross_entropy.clone(), distilled.clone()
        ctx.mark_non_differentiable(*parts)
        return total, *parts

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
        grads = (None if saved is None else saved.mul_(grad.to(saved.dtype)) for saved in ctx.saved_tensors)
        return *grads, *(None,) * 6


def _logits(hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, buffer: Tensor) -> Tensor:
    out = buffer[: len(hidden_ND)]
    if bias_V is None:
        return torch.mm(hidden_ND, weight_VD.t(), out=out)
    return torch.addmm(bias_V, hidden_ND, weight_VD.t(), out=out)


def _to_gradient(
    logits_NV: Tensor, targets_N: Tensor, teacher_NV: Tensor | None, terms: Terms, sums: Tensor, scale: float
) -> Tensor:
    """Overwrite logits by `scale` times the gradient of the chunk's summed loss; add its CE and T^2 D to `sums`."""
    block = max(1, BLOCK_ELEMENTS[logits_NV.device.type] // logits_NV.shape[1])
    for start in range(0, len(logits_NV), block):
        part = slice(start, start + block)
        theirs = None if teacher_NV is None else teacher_NV[part]
        torch.mul(_gradient(logits_NV[part], targets_N[part], theirs, terms, sums), scale, out=logits_NV[part])
    return logits_NV


def _gradient(logits: Tensor, targets: Tensor, teacher: Tensor | None, terms: Terms, sums: Tensor) -> Tensor:
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    grad = None
    if teacher is not None:
        log_q = F.log_softmax(teacher.to(logits.dtype) / terms.temperature, -1)
        log_p = F.log_softmax(logits / terms.temperature, -1)
        values, grad = terms.divergence(log_p, log_q)
        sums[1] += terms.temperature**2 * values.sum()
        grad.mul_(terms.kd * terms.temperature)
    if terms.ce:
        log_p = F.log_softmax(logits, -1)
        index = targets[:, None]
        sums[0] -= log_p.gather(1, index).sum()
        by_ce = log_p.exp_()
        by_ce.scatter_add_(1, index, by_ce.new_full((1, 1), -1.0).expand_as(index))
        grad = by_ce.mul_(terms.ce) if grad is None else grad.add_(by_ce, alpha=terms.ce)
    return torch.zeros_like(logits) if grad is None else grad


class VocabularyLoss(nn.Module):
    """CE and distillation over the vocabulary, from the hidden states of a student and a teacher (None without kd)."""

    def __init__(self, student: PreTrainedModel, teacher: PreTrainedModel | None, losses: Losses) -> None:
        super().__init__()
        self._models = (student, teacher)
        self._losses = losses
        # Asked for now: a head computed from parameters that are partitioned later could no longer be followed.
        self._of_teacher = [] if teacher is None else _read_by_head(teacher)
        if teacher is not None:
            ours, theirs = len(head_weight(student)[0]), len(head_weight(teacher)[0])
            if ours != theirs:
                raise StageFailure(f"kd: the student's vocabulary has {ours} tokens, the teacher's {theirs}")

    def parameters_read(self) -> list[nn.Parameter]:
        """The parameters that the student's head is computed from.

        They belong to other modules: an engine that partitions parameters must gather them around this module's
        forward and backward passes.
        """
        return _read_by_head(self._models[0])

    def teacher_parameters_read(self) -> list[nn.Parameter]:
        """The same of the teacher's head; none without a teacher."""
        return self._of_teacher

    def forward(
        self, student_BTD: Tensor, targets_BT: Tensor, teacher_BTD: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The weighted loss, and its CE and T^2 KL, detached; means over all positions."""
        student, teacher = self._models
        weight_VD, bias_V = head_weight(student)
        t_weight_VD = t_bias_V = None
        if teacher is not None:
            with torch.no_grad():
                t_weight_VD, t_bias_V = head_weight(teacher)
        student_ND, targets_N = student_BTD.flatten(0, 1), targets_BT.flatten()
        teacher_ND = None if teacher_BTD is None or teacher is None else teacher_BTD.flatten(0, 1)
        if liger.serves(self._losses, student_ND, bias_V, t_bias_V):
            return liger.vocabulary_loss(
                student_ND, weight_VD, targets_N, teacher_ND=teacher_ND, teacher_weight_VD=t_weight_VD,
                losses=self._losses,
            )  # fmt: skip
        return vocabulary_loss(
            student_ND,
            weight_VD,
            bias_V,
            targets_N,
            teacher_ND=teacher_ND,
            teacher_weight_VD=t_weight_VD,
            teacher_bias_V=t_bias_V,
            ce=self._losses.ce,
            kd=self._losses.kd if teacher is not None else 0.0,
            temperature=self._losses.temperature,
            divergence=divergence_of(self._losses),
        )


def head_weight(model: PreTrainedModel) -> tuple[Tensor, Tensor | None]:
    """Dense weight (V, D) and bias (V) or None of the output head, connected to the parameters they are made of."""
    head = model.get_output_embeddings()
    weight = getattr(head, "weight", None)
    bias = getattr(head, "bias", None)
    if isinstance(weight, Tensor) and weight.ndim == 2:
        return weight, bias if isinstance(bias, Tensor) else None
    raise StageFailure(f"the output head {type(head).__name__} has no `weight` of shape (vocabulary, width)")


def _read_by_head(model: PreTrainedModel) -> list[nn.Parameter]:
    weight_VD, bias_V = head_weight(model)
    return _leaves(weight_VD) + ([] if bias_V is None else _leaves(bias_V))


@torch.no_grad()
def check_head(model: PreTrainedModel, side: str) -> None:
    """Raise `StageFailure` unless logits are `hidden weight^T + bias` of the head: what the chunked loss computes."""
    input_ids = torch.arange(4, device=model.device)[None]
    hidden_BTD = model.base_model(input_ids=input_ids, use_cache=False).last_hidden_state
    expected = model(input_ids=input_ids, use_cache=False).logits
    weight_VD, bias_V = head_weight(model)
    linear = F.linear(hidden_BTD, weight_VD, bias_V)
    if linear.shape != expected.shape or not torch.allclose(linear, expected, rtol=1e-3, atol=1e-3):
        raise StageFailure(f"the {side}'s logits are not a linear map of its last hidden states by its head's weight")


def _leaves(tensor: Tensor) -> list[nn.Parameter]:
    """The parameters that a tensor was computed from."""
    if tensor.grad_fn is None:
        return [tensor] if isinstance(tensor, nn.Parameter) else []
    found: dict[int, nn.Parameter] = {}
    seen: set[Any] = set()
    pending: list[Any] = [tensor.grad_fn]
    while pending:
        node = pending.pop()
        variable = getattr(node, "variable", None)
        if variable is not None:
            found[id(variable)] = variable
        parents = {parent for parent, _ in node.next_functions if parent is not None} - seen
        seen |= parents
        pending.extend(parents)
    return list(found.values())
