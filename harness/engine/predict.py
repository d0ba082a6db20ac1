"""A fine-tuned classifier's outputs on many examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from harness.engine.pooling import last_token_logits
from harness.stage import StageFailure

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class NotFinite(StageFailure):
    """A trained classifier says NaN or infinity."""

    failure_class = "diverged"


@torch.no_grad()
def predict(model: PreTrainedModel, input_ids: Sequence[Sequence[int]], pad_id: int, *, batch_examples: int) -> Tensor:
    """Logits (N, C) in the order given; examples of like length are run together, padded on the right.

    Raises:
        NotFinite: one is NaN or infinite.
    """
    model.eval()
    order = sorted(range(len(input_ids)), key=lambda row: len(input_ids[row]))
    logits_NC = torch.empty(len(order), model.config.num_labels)
    for start in range(0, len(order), batch_examples):
        rows = order[start : start + batch_examples]
        width = max(len(input_ids[row]) for row in rows)
        ids_BT = torch.tensor([[*input_ids[row], *[pad_id] * (width - len(input_ids[row]))] for row in rows])
        lengths_B = torch.tensor([len(input_ids[row]) for row in rows])
        mask_BT = (torch.arange(width) < lengths_B[:, None]).long()
        logits_NC[rows] = last_token_logits(model, ids_BT.to(model.device), mask_BT.to(model.device)).cpu()
    finite_N = torch.isfinite(logits_NC).all(-1)
    if not finite_N.all():
        raise NotFinite(f"the classifier's output for example {int(finite_N.int().argmin())} is NaN or infinite")
    return logits_NC
