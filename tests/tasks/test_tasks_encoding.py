from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

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


def test_padding_is_eos_whatever_the_tokenizer_pads_with(tokenizer: Any):
    other = copy.deepcopy(tokenizer)
    other.pad_token = None
    assert encode(other, SINGLE, 10).pad_token_id == 0
    other.add_special_tokens({"pad_token": "<pad>"})  # an id that the model may not embed
    assert encode(other, SINGLE, 10).pad_token_id == 0


def test_some_of_the_examples_in_another_order(tokenizer: Any):
    found = encode(tokenizer, PAIRS, 100)
    taken = found.take(np.array([1, 0]))
    assert list(taken.input_ids) == [found.input_ids[1], found.input_ids[0]]
    assert (taken.lengths.tolist(), taken.labels.tolist()) == (found.lengths[::-1].tolist(), [4.0, 0.5])


def test_no_eos_is_refused(tokenizer: Any):
    other = copy.deepcopy(tokenizer)
    other.eos_token = None
    with pytest.raises(DataError, match="no EOS token"):
        encode(other, SINGLE, 10)


def test_no_examples_encode_to_nothing(tokenizer: Any):
    found = encode(tokenizer, Examples(first=[], second=None, labels=[]), 10)
    assert isinstance(found, Encoded)
    assert len(found.input_ids) == len(found.lengths) == len(found.labels) == 0
