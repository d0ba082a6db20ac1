"""Identity: a value's canonical bytes and their digest. What has no stable byte form is an error, never `str(x)`."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

KEY_DIGITS = 24
"""Hex digits of a stage's key: 96 bits."""


def plain(value: Any) -> Any:
    """`value` as JSON types, tuples as lists; TypeError for what has no stable byte form (sets, NaN, objects)."""
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise TypeError(f"{value} has no stable byte form")
        return value
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"key {key!r} has no stable byte form")
        return {key: plain(item) for key, item in value.items()}
    raise TypeError(f"{type(value).__name__} {value!r} has no stable byte form")


def digest(value: Any, digits: int = KEY_DIGITS) -> str:
    """The first hex digits of the SHA-256 of `value`'s canonical JSON: sorted keys, no blanks, floats by `repr`."""
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
