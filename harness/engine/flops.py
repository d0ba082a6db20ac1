"""Floating-point operations of training, counted from what the models run, whatever layers they are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def forward_flops_per_token(model: PreTrainedModel, sequence_length: int) -> float:
    """FLOPs of one forward pass over one sequence, divided by its tokens; a multiply-add is two.

    Counts matrix products: with weights, and attention's 4 T D per layer and token, its T x T scores in full although
    half are masked. Norms, softmax and activations are left out, as is usual. Eager attention runs, since not every
    fused one can be counted. Shapes alone decide, so nothing is computed (torch's meta device), unless a layer reads
    values.
    """
    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        total = _forward_flops(model, sequence_length, torch.device("meta"))
    except RuntimeError:
        total = _forward_flops(model, sequence_length, model.device)
    finally:
        model.set_attn_implementation(implementation)
    return total / sequence_length


@torch.no_grad()
def _forward_flops(model: PreTrainedModel, length: int, device: torch.device) -> int:
    """With a mask of four dimensions, which transformers takes as it is: it would read the values of a shorter one."""
    tensors = {name: tensor.to(device) for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    inputs = {
        "input_ids": torch.zeros(1, length, dtype=torch.int64, device=device),
        "attention_mask": torch.zeros(1, 1, length, length, device=device),
    }
    with FlopCounterMode(display=False) as counter:
        functional_call(model, tensors, kwargs={**inputs, "use_cache": False})
    total: int = counter.get_total_flops()
    return total


def training_flops_per_token(student: PreTrainedModel, teacher: PreTrainedModel | None, sequence_length: int) -> float:
    """FLOPs of training on one token: 3 forward passes of the student (backward is 2), 1 of the teacher if any.

    Recomputation by activation checkpointing is execution, not counted.
    """
    forward = 3 * forward_flops_per_token(student, sequence_length)
    return forward + (forward_flops_per_token(teacher, sequence_length) if teacher is not None else 0)
