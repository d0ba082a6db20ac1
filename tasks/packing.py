"""Documents as one flat stream of token ids, what language models are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.interface import DataError

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase


def pack(documents: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Token ids of all documents in order, an EOS after each; shape (tokens,), uint16 if the vocabulary fits in it."""
    import numpy as np

    if tokenizer.eos_token_id is None:
        raise DataError("the tokenizer has no EOS token to put between documents")
    if not documents:
        raise DataError("there are no documents to pack")
    encoded = tokenizer(list(documents), add_special_tokens=False, return_attention_mask=False, verbose=False)
    dtype = np.uint16 if len(tokenizer) <= 2**16 else np.uint32
    return np.concatenate([np.asarray([*ids, tokenizer.eos_token_id], dtype=dtype) for ids in encoded["input_ids"]])
