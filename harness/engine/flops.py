"""Floating-point operations of training, counted from what the models run, whatever layers they are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.utils.flop_counter import FlopCounterMode

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def forward_flops_per_token(model: PreTrainedModel, sequence_length: int) -> float:
    """FLOPs of one forward pass over one sequence, divided by its tokens; a multiply-add is two.

    Counts matrix products: with weights, and attention's 4 T D per layer and token, its T x T scores in full although
    half are masked. Norms, softmax and activations are left out, as is usual. Eager attention runs, since not every
    fused one can be counted.
    """
    input_ids = torch.zeros(1, sequence_length, dtype=torch.int64, device=model.device)
    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(input_ids=input_ids, use_cache=False)
    model.set_attn_implementation(implementation)
    total: int = counter.get_total_flops()
    return total / sequence_length


def training_flops_per_token(student: PreTrainedModel, teacher: PreTrainedModel | None, sequence_length: int) -> float:
    """FLOPs of training on one token: 3 forward passes of the student (backward is 2), 1 of the teacher if any.

    Recomputation by activation checkpointing is execution, not counted.
    """
    forward = 3 * forward_flops_per_token(student, sequence_length)
    return forward + (forward_flops_per_token(teacher, sequence_length) if teacher is not None else 0)
