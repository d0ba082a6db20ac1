"""Texts as one array of token ids, with what each token stands for: itself, words or bytes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tasks.interface import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

Normaliser = Literal["token", "word", "byte"]

_WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class TokenStream:
    """The ids of one or several texts, one after the other (N)."""

    ids_N: NDArray[np.int64]
    weight_N: NDArray[np.int64]
    """How much of the normaliser each token stands for: 1 token, the words that begin in it, its bytes."""
    ends: Sequence[int]
    """Where each text ends."""


def joined(text: str, tokenizer: PreTrainedTokenizerBase, normaliser: Normaliser, *, special: bool) -> TokenStream:
    """One text; `special` adds the tokens that the tokenizer puts around a text (Llama 2's BOS; GPT-2 has none)."""
    ids_N, weight_N = _encode(text, tokenizer, normaliser, special=special)
    return TokenStream(ids_N, weight_N, [len(ids_N)])


def apart(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, normaliser: Normaliser) -> TokenStream:
    """Several texts, each after one BOS token (EOS where there is none), which stands for nothing.

    Raises:
        DataError: the tokenizer has neither.
    """
    import numpy as np

    first = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    if first is None:
        raise DataError("the tokenizer has neither a BOS nor an EOS token to begin a document with")
    encoded = [_encode(text, tokenizer, normaliser, special=False) for text in texts]
    ids_N = np.concatenate([np.append(np.int64(first), ids) for ids, _ in encoded])
    weight_N = np.concatenate([np.append(np.int64(0), weight) for _, weight in encoded])
    return TokenStream(ids_N, weight_N, list(np.cumsum([len(ids) + 1 for ids, _ in encoded])))


def _encode(
    text: str, tokenizer: PreTrainedTokenizerBase, normaliser: Normaliser, *, special: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    import numpy as np

    offsets = {} if normaliser == "token" else {"return_offsets_mapping": True}
    if offsets and not tokenizer.is_fast:
        raise DataError(f"{type(tokenizer).__name__} cannot say where its tokens lie in the text, by {normaliser}s")
    found = tokenizer(text, add_special_tokens=special, verbose=False, **offsets)
    ids_N = np.asarray(found["input_ids"], dtype=np.int64)
    if normaliser == "token":
        return ids_N, np.ones_like(ids_N)
    until = _words_until(text) if normaliser == "word" else _bytes_until(text)
    end_N = np.maximum.accumulate(np.asarray([end for _, end in found["offset_mapping"]], dtype=np.int64))
    return ids_N, np.diff(until[end_N], prepend=0)


def _words_until(text: str) -> NDArray[np.int64]:
    """How many words begin before each character, and before the text's end."""
    import numpy as np

    starts = np.zeros(len(text) + 1, dtype=np.int64)
    starts[[match.start() + 1 for match in _WORD.finditer(text)]] = 1
    return np.cumsum(starts)


def _bytes_until(text: str) -> NDArray[np.int64]:
    """How many bytes of UTF-8 lie before each character, and before the text's end."""
    import numpy as np

    code_N = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    length_N = 1 + (code_N > 0x7F).astype(np.int64) + (code_N > 0x7FF) + (code_N > 0xFFFF)
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(length_N)])
