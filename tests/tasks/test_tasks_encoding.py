from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from tasks.encoding import Encoded, encode
from tasks.interface import DataError, Examples

SINGLE = Examples(first=["a cat", "the dog sat on the red mat", ""], second=None, labels=[0, 1, 1])
PAIRS = Examples(first=["a cat", "the dog ran"], second=["sat under a hill", ""], labels=[0.5, 4.0])


def ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text)["input_ids"])


def test_single_texts_are_their_tokens(tokenizer: Any):
    found = encode(tokenizer, SINGLE, 100)
    assert list(found.input_ids) == [ids(tokenizer, SINGLE.first[0]), ids(tokenizer, SINGLE.first[1]), [0]]
    assert found.lengths.tolist() == [len(row) for row in found.input_ids]
    assert (found.labels.dtype, found.labels.tolist()) == (np.int64, [0, 1, 1])


def test_pairs_are_joined_by_eos(tokenizer: Any):
    found = encode(tokenizer, PAIRS, 100)
    assert found.input_ids[0] == [*ids(tokenizer, "a cat"), 0, *ids(tokenizer, "sat under a hill")]
    assert (found.labels.dtype, found.labels.tolist()) == (np.float64, [0.5, 4.0])


@pytest.mark.parametrize("max_length", [3, 4, 5, 6, 7, 8, 12])
def test_the_longer_part_is_cut(tokenizer: Any, max_length: int):
    first, second = PAIRS.first[0], PAIRS.second[0]  # type: ignore[index]
    a, b = ids(tokenizer, first), ids(tokenizer, second)
    row = list(encode(tokenizer, PAIRS, max_length).input_ids[0])
    while len(a) + 1 + len(b) > max_length:
        longer = a if len(a) > len(b) else b
        longer.pop()
    assert row == [*a, 0, *b]


def test_single_texts_are_cut(tokenizer: Any):
    assert encode(tokenizer, SINGLE, 3).input_ids[1] == ids(tokenizer, SINGLE.first[1])[:3]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_transformers_pools_the_last_token_of_every_row(tokenizer: Any, family: str):
    """A padded batch scores as each example does alone, where the last token is the last position."""
    from transformers import (
        GPT2Config,
        GPT2ForSequenceClassification,
        LlamaConfig,
        LlamaForSequenceClassification,
    )

    torch.manual_seed(0)
    special = {"bos_token_id": 0, "eos_token_id": 0, "vocab_size": 290, "num_labels": 3}
    examples = Examples(first=["a cat", "the dog ran"], second=["sat under a hill", "a mat"], labels=[0, 1])
    encoded = encode(tokenizer, examples, 30)
    special["pad_token_id"] = encoded.pad_token_id
    model: Any
    if family == "gpt2":
        model = GPT2ForSequenceClassification(GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=64, **special))
    else:
        shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        model = LlamaForSequenceClassification(LlamaConfig(**shape, **special))
    model.eval()
    rows = [torch.tensor(row) for row in encoded.input_ids]
    ids_BT = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=encoded.pad_token_id)
    mask_BT = (torch.arange(ids_BT.shape[1]) < torch.from_numpy(encoded.lengths)[:, None]).long()
    assert mask_BT.min() == 0
    with torch.no_grad():
        together = model(input_ids=ids_BT, attention_mask=mask_BT).logits
        alone = torch.cat([model(input_ids=torch.tensor([row])).logits for row in encoded.input_ids])
        last = model.base_model(input_ids=torch.tensor([encoded.input_ids[0]])).last_hidden_state[:, -1]
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(alone[:1], model.score(last), rtol=1e-5, atol=1e-6)


def test_a_missing_pad_token_becomes_eos_and_a_given_one_is_kept(tokenizer: Any):
    other = copy.deepcopy(tokenizer)
    other.pad_token = None
    assert encode(other, SINGLE, 10).pad_token_id == 0
    assert other.pad_token is None
    other.add_special_tokens({"pad_token": "<pad>"})
    assert encode(other, SINGLE, 10).pad_token_id == 290


def test_no_eos_is_refused(tokenizer: Any):
    other = copy.deepcopy(tokenizer)
    other.eos_token = None
    with pytest.raises(DataError, match="no EOS token"):
        encode(other, SINGLE, 10)


def test_no_examples_encode_to_nothing(tokenizer: Any):
    found = encode(tokenizer, Examples(first=[], second=None, labels=[]), 10)
    assert isinstance(found, Encoded)
    assert len(found.input_ids) == len(found.lengths) == len(found.labels) == 0
