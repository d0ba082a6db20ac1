"""The canonical bytes of a value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.identity import KEY_DIGITS, digest, plain


@pytest.mark.parametrize(
    "value",
    [
        {1, 2},
        float("nan"),
        float("inf"),
        object(),
        Path("x"),
        b"bytes",
        1j,
        {1: "a"},
        {None: "a"},
        {"deep": [{"er": {1}}]},
        {"deep": ({"er": float("nan")},)},
    ],
)
def test_what_has_no_stable_bytes_is_an_error(value: Any) -> None:
    with pytest.raises(TypeError, match="no stable byte form"):
        digest(value)


def test_the_order_of_keys_does_not_count_and_that_of_lists_does() -> None:
    assert digest({"a": 1, "b": {"c": 2, "d": 3}}) == digest({"b": {"d": 3, "c": 2}, "a": 1})
    assert digest([1, 2]) != digest([2, 1])


def test_tuples_are_lists() -> None:
    assert plain({"a": (1, (2,))}) == {"a": [1, [2]]}
    assert digest((1, 2)) == digest([1, 2])


@pytest.mark.parametrize(("one", "other"), [(1, 1.0), (1, True), (0, None), ("1", 1), ([], {}), ("\u00e9", "e\u0301")])
def test_different_values_have_different_digests(one: Any, other: Any) -> None:
    assert digest(one) != digest(other)


def test_the_digest_is_the_sha256_of_canonical_json() -> None:
    """`printf '{"a":[1,0.1,null,"ä"]}' | sha256sum`: another implementation can compute it."""
    assert digest({"a": (1, 0.1, None, "ä")}, 64) == "22c4d76b54af2a39236996adf04880f9d3ea6d514a3ac9c39398abc02cd67fa9"
    assert len(digest({})) == KEY_DIGITS
