"""Labelled texts as token ids for decoder-only classifiers (GPT-2, Llama)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.interface import DataError, Examples

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Examples as token ids of different lengths; batches of them are padded on the right."""

    input_ids: Sequence[Sequence[int]]
    lengths: np.ndarray
    labels: np.ndarray
    """Class indices as int64; float64 for regression."""
    pad_token_id: int
    """Must also be `config.pad_token_id` of the model: its classifier reads the last token that is not this one."""


def encode(tokenizer: PreTrainedTokenizerBase, examples: Examples, max_length: int) -> Encoded:
    """Tokenise; a pair becomes `first EOS second`, and tokens beyond `max_length` are cut from the longer part.

    Nothing follows the last text, so that transformers' `...ForSequenceClassification` pools its last token. A
    tokenizer without a padding token gets EOS for it: an EOS *inside* a pair is still attended to, by its mask.
    An empty text becomes one EOS.
    """
    import numpy as np

    if (eos := tokenizer.eos_token_id) is None:
        raise DataError("the tokenizer has no EOS token to separate pairs with")
    first = _ids(tokenizer, examples.first)
    if examples.second is None:
        rows = [ids[:max_length] for ids in first]
    else:
        second = _ids(tokenizer, examples.second)
        rows = [_joined(a, b, eos, max_length) for a, b in zip(first, second, strict=True)]
    rows = [row or [eos] for row in rows]
    pad = eos if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    return Encoded(input_ids=rows, lengths=lengths, labels=np.asarray(examples.labels), pad_token_id=pad)


def _ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    if not texts:
        return []
    encoded: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    return encoded


def _joined(first: list[int], second: list[int], separator: int, max_length: int) -> list[int]:
    """`first separator second` in at most `max_length` tokens, cut from the longer part, from `second` on a tie."""
    room = max_length - 1
    keep_second = min(len(second), max(room // 2, room - len(first)))
    return [*first[: room - keep_second], separator, *second[:keep_second]]
