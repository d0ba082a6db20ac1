"""What a decoder-only classifier says of each text: the scores at its last token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def last_token_logits(model: PreTrainedModel, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Tensor:
    """Logits (B, C) in float32, read at the last position that the mask attends to; texts are padded on the right.

    The mask decides, never the token: transformers' `...ForSequenceClassification` looks for the last token that is not
    the padding one, and so reads another where a text itself ends with it, as a pair does whose second part is empty.
    """
    inputs = {"input_ids": input_ids_BT, "attention_mask": attention_mask_BT}
    hidden_BTD = model.base_model(**inputs, use_cache=False).last_hidden_state
    last_B = attention_mask_BT.sum(-1) - 1
    logits_BC: Tensor = model.score(hidden_BTD[torch.arange(len(last_B), device=hidden_BTD.device), last_B])
    return logits_BC.float()
