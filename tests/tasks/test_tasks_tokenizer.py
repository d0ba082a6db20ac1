from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tasks.interface import DataError
from tasks.packing import pack
from tasks.tokenizer import END, train


def test_has_exactly_the_size_asked_for_and_one_special_token(tokenizer: Any):
    assert len(tokenizer) == tokenizer.vocab_size == 290
    assert {tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token} == {END}
    assert tokenizer.eos_token_id == 0
    assert sorted(tokenizer.get_vocab().values()) == list(range(290))


def test_same_text_gives_the_same_tokenizer(documents: list[str], tokenizer: Any):
    again = train(documents, 290)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


@pytest.mark.parametrize("text", ["a cat sat", "  two  spaces\n\nand tabs\t", "żółć 猫 🐈", "it 's , not ."])
def test_any_text_survives(tokenizer: Any, text: str):
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_first_merge_is_the_most_frequent_pair():
    learnt = train(["zq zq zq zq ab"], 258)
    assert learnt.convert_ids_to_tokens(257) == "zq"


def test_survives_saving(tokenizer: Any, tmp_path: Any):
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "the cat, quickly"
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert (loaded.pad_token_id, loaded.eos_token_id, len(loaded)) == (0, 0, 290)


def test_too_short_a_text_says_how_many_it_makes():
    with pytest.raises(DataError, match="vocab_size 1000: the text is only enough for 258 entries"):
        train(["ab"], 1000)
    with pytest.raises(DataError, match="at least 257"):
        train(["ab"], 256)


def test_packs_documents_with_an_eos_after_each(tokenizer: Any):
    stream = pack(["a cat", "", "the dog"], tokenizer)
    assert stream.dtype == np.uint16
    assert stream.tolist() == [*tokenizer("a cat")["input_ids"], 0, 0, *tokenizer("the dog")["input_ids"], 0]


def test_packs_large_vocabularies_into_32_bits(tokenizer: Any):
    import copy

    large = copy.deepcopy(tokenizer)
    large.add_tokens([f"<{number}>" for number in range(2**16 - 290 + 1)])
    stream = pack([f"<{2**16 - 290}>"], large)
    assert stream.dtype == np.uint32
    assert stream.tolist() == [2**16, 0]


def test_nothing_to_pack_is_refused(tokenizer: Any):
    with pytest.raises(DataError, match="no documents"):
        pack([], tokenizer)
