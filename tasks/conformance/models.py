"""Tiny GPT-2s, one that knows nothing and one that knows every next token, and tokenizers of single bytes.

Nothing here is learned or read from a file, so that it is the same everywhere: one token per byte and an end of text.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from tasks.tokenizer import SMALLEST, train

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

VOCAB = SMALLEST
POSITIONS = 64
SURE = 40.0
"""Distance between the oracle's logits in nats: the other tokens' probabilities are lost in rounding."""


@cache
def tokenizer() -> PreTrainedTokenizerBase:
    """A token per byte, and an end of text (id 0)."""
    return train(["a"], VOCAB)


class CountingTokenizer(PreTrainedTokenizerFast):  # type: ignore[misc]
    """As many tokens as `tokenizer` gives, numbered 1, 2, ..., 256, 1, ... from the start of each text.

    The token before tells the next one, whatever the text is; that of an end of text is 1.
    """

    def _encode_plus(self, *args: Any, **kwargs: Any) -> BatchEncoding:
        found = super()._encode_plus(*args, **kwargs)
        ids = found["input_ids"]
        if isinstance(ids, list):
            found["input_ids"] = [_count(each) for each in ids] if ids and isinstance(ids[0], list) else _count(ids)
        return found


def _count(ids: list[int]) -> list[int]:
    return [1 + place % (VOCAB - 1) for place in range(len(ids))]


@cache
def counting_tokenizer() -> PreTrainedTokenizerBase:
    """The tokenizer that goes with `oracle`."""
    plain = tokenizer()
    special = {"bos_token": plain.bos_token, "eos_token": plain.eos_token, "pad_token": plain.pad_token}
    return CountingTokenizer(tokenizer_object=plain.backend_tokenizer, **special)


def random_model() -> PreTrainedModel:
    """Random weights, large enough for predictions that are far from uniform; the same bits everywhere."""
    model = _empty(width=32, heads=4)
    draw = np.random.Generator(np.random.Philox(0))
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            parameter.copy_(_drawn(draw, tuple(parameter.shape)))
    return model


def _drawn(draw: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    """Normal for a matrix; around one for a vector, so that norms keep what they scale."""
    values = draw.standard_normal(shape)
    return torch.from_numpy(0.3 * values if len(shape) > 1 else 1 + 0.1 * values)


def uniform() -> PreTrainedModel:
    """Every next token has probability 1 / `VOCAB`."""
    model = random_model()
    with torch.no_grad():
        model.lm_head.weight.zero_()
    return model


def oracle() -> PreTrainedModel:
    """The token after t is t + 1, and 1 after 256: always right about texts of `counting_tokenizer`.

    Its blocks add nothing, so that the normalised embedding of a token is sqrt(width) in the token's own place.
    """
    width = VOCAB + 3
    model = _empty(width=width, heads=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.transformer.ln_f.weight.fill_(1)
        for token in range(VOCAB):
            model.transformer.wte.weight[token, token] = 1
            model.lm_head.weight[1 + token % (VOCAB - 1), token] = SURE / width**0.5
    return model


def _empty(width: int, heads: int) -> Any:
    config = GPT2Config(
        vocab_size=VOCAB,
        n_positions=POSITIONS,
        n_embd=width,
        n_layer=2 if heads > 1 else 1,
        n_head=heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
        tie_word_embeddings=False,
    )
    return GPT2LMHeadModel(config).eval()
