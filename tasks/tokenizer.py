"""Byte-level byte-pair encoding. Sennrich et al., arXiv 1508.07909; Radford et al., GPT-2, 2019."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tasks.interface import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

END = "<|endoftext|>"
SMALLEST = 257
"""256 bytes and `END`."""


def train(documents: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A tokenizer with exactly `vocab_size` entries, `END` (id 0) as bos, eos and pad; the same text, the same ids.

    `DataError` when the text is too short for that many merges, or `vocab_size` is below 257.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    if vocab_size < SMALLEST:
        raise DataError(f"vocab_size {vocab_size}: byte-level BPE needs at least {SMALLEST} entries")
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(documents, trainer)
    if (made := bpe.get_vocab_size()) != vocab_size:
        raise DataError(f"vocab_size {vocab_size}: the text is only enough for {made} entries")
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=END, eos_token=END, pad_token=END)
