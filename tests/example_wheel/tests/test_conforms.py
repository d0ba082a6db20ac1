"""What a third party tests: that the method is found by name, that it conforms, and what is its own."""

import sys

import pytest

from methods import registry
from methods.conformance import assert_conforms
from methods.fields import decode
from methods.interface import MethodError
from methods.layers.factorised import layer_class


def test_a_saved_students_layer_finds_its_code_by_name():
    assert "weighin_blocks" not in sys.modules
    assert layer_class("block_low_rank.linear").__module__ == "weighin_blocks"


def test_it_is_listed_with_its_summary():
    assert registry.summary("block_low_rank").startswith("Block-diagonal plus low rank")


def test_it_conforms():
    assert_conforms("block_low_rank")


def test_it_conforms_with_other_fields():
    assert_conforms(decode("block_low_rank", {"blocks": 3, "layers": "odd"}), teachers=["llama"])


def test_one_block_is_refused():
    with pytest.raises(MethodError, match="blocks: 1 would leave the matrix whole"):
        decode("block_low_rank", {"blocks": 1})
