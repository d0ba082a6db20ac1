"""Labelled texts as token ids for decoder-only classifiers (GPT-2, Llama)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tasks.interface import DataError, Examples

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Examples as token ids of different lengths; batches of them are padded on the right and masked."""

    input_ids: Sequence[Sequence[int]]
    lengths: np.ndarray
    labels: np.ndarray
    """Class indices as int64; float64 for regression."""
    pad_token_id: int
    """EOS, which every model embeds: what stands behind a text is masked, so that any token would do."""

    def take(self, rows: Sequence[int] | np.ndarray) -> Encoded:
        """Some of the examples, in the order of `rows`."""
        ids = [self.input_ids[row] for row in rows]
        return replace(self, input_ids=ids, lengths=self.lengths[rows], labels=self.labels[rows])


def encode(tokenizer: PreTrainedTokenizerBase, examples: Examples, max_length: int) -> Encoded:
    """Tokenise; a pair becomes `first EOS second`, and tokens beyond `max_length` are cut from the longer part.

    Nothing follows the last text: a classifier is read at its last token. An empty text becomes one EOS, and a pair
    with an empty second text ends with EOS, which is attended to and read like any token.

    Raises:
        DataError: the tokenizer has no EOS token.
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
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    return Encoded(input_ids=rows, lengths=lengths, labels=np.asarray(examples.labels), pad_token_id=eos)


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
