"""What is shown of a record's text."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from results.plain_text import csv_safe, plain, plain_data

DIRECTIONS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI", "BN"}
"""Classes of characters that turn the direction of text, or have no part in it."""
EVERYTHING = "".join(map(chr, (*range(0x20000), *range(0xE0000, 0xE1000), sys.maxunicode)))


def test_nothing_that_controls_or_turns_text_is_left() -> None:
    left = plain(EVERYTHING)
    bad = {
        char
        for char in set(left)
        if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")
        or (unicodedata.bidirectional(char) in DIRECTIONS and unicodedata.category(char) != "Cn")
    }
    assert not bad
    left.encode()


@pytest.mark.parametrize("text", ["kron (rank=2)", "", "Größe ≤ 3 µs", "日本語", "שלום", "👍", "a  b"])
def test_other_text_is_left_alone(text: str) -> None:
    assert plain(text) == text


def test_what_is_unseen_is_shown_and_stays_different() -> None:
    assert plain("\x1b[31mred\x07") == "␛[31mred␇"
    assert plain("a\nb\tc\r") == "a␊b␉c␍"
    assert plain("a\nb\tc\r", lines=True) == "a\nb\tc␍"
    assert plain("x\u202ey\x9b\x7f\ud800\U000e0041") == "x\\u202ey\\x9b␡\\ud800\\U000e0041"
    assert len({plain(f"a{char}b") for char in "\n\t\r \x00\u200b\ufeff"}) == 7


def test_nested_data() -> None:
    assert plain_data({"a\x1b": ["x\x00", 1, None, {"k": ("\u202e",)}]}) == {"a␛": ["x␀", 1, None, {"k": ["\\u202e"]}]}


@pytest.mark.parametrize("lead", ["=", "+", "-", "@", "\t", "\r", "\n", "  =", "＝"])
def test_a_formula_is_quoted(lead: str) -> None:
    assert csv_safe(f"{lead}1+1").startswith("'")


def test_other_cells_are_not_quoted() -> None:
    assert [csv_safe(text) for text in ("params=0.66", "1-2", "a\nb", "'x")] == ["params=0.66", "1-2", "a\nb", "'x"]
