"""300 hostile record files: seeded mutations of real ones, by type, size, nesting, encoding and content."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

from results.record import Record

NUM_FILES = 300
TEXTS = (
    "<script>alert(1)</script>", "</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>", "\"'><iframe src=javascript:alert(1)>", "javascript:alert(1)", "{{7*7}}${7*7}<%=7*7%>",
    "<!--", "]]>", "--></script>", "${alert(1)}`${alert(1)}`", "</td></tr></table><script>alert(1)</script>",
    "=HYPERLINK(\"http://x\",\"y\")", "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\t=1", "\r=1", "|a|b|",
    "`x` *y* [z](u)", "\x1b[2J\x1b]0;owned\x07", "\x1b[31mred", "\x9b31m", "a\u202eb\u2066c", "\u200b\ufeff", "\x00",
    "a\nb\r\nc\td", "\x7f", "../../etc/passwd", "..\\..\\x", "/etc/passwd", "C:\\x", "a/b", ".", "..", "CON",
    "%2e%2e%2f", "file:///etc/passwd", "[bold]x[/nonsense]", "\\input{/etc/passwd}$\\alpha$ 100% #_{}~^&", "💥" * 50,
    "é" * 300, "x" * 999, "x" * 100_001, "", " ", "null", "NaN", "0", "__proto__", "constructor", "params=0.66",
    "params=nan", "params=1e999", "=", "params=-inf", "אבג", "ﷺ" * 40, "z̸̡̢̛" * 20, "\u2028\u2029", "﻿",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63 - 1, 2**63, 10**400, -(2**63), 0.0, -0.0, 1e-320, 1e308, -1e308, 1e30,
    0.5, float("nan"), float("inf"), float("-inf"), [], {}, [[]], {"a": {}}, [None] * 3, {"": ""}, "1", 3.7,
)  # fmt: skip


def hostile_files(records: list[Record]) -> dict[str, bytes]:
    """Name -> contents of `NUM_FILES` files."""
    return dict(_files(records))


def _files(records: list[Record]) -> Iterator[tuple[str, bytes]]:
    makers: tuple[Any, ...] = (
        _texts,
        _texts,
        _values,
        _values,
        _keys,
        _shape,
        _bytes,
    )
    for number in range(NUM_FILES):
        draw = random.Random(number)
        data = json.loads(draw.choice(records).model_dump_json())
        if number % 3:
            data["row"] = f"{number:08x}"
        yield f"{number:08x}-0-{number:012x}.json", makers[number % len(makers)](draw, data)


def _places(data: Any) -> list[tuple[Any, Any]]:
    """(Container, key) of every value in parsed JSON."""
    items = list(data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ())
    return [(data, key) for key, _ in items] + [place for _, value in items for place in _places(value)]


def _dumped(data: Any) -> bytes:
    return json.dumps(data).encode()


def _texts(draw: random.Random, data: Any) -> bytes:
    """Texts that attack whatever shows them, in place of texts and in what may hold anything."""
    places = [(box, key) for box, key in _places(data) if isinstance(box[key], str) and key not in ("status", "when")]
    for box, key in draw.sample(places, draw.randint(1, 12)):
        box[key] = draw.choice(TEXTS)
    evil = draw.choice(TEXTS)
    data["cell"]["fields"] = {draw.choice(TEXTS): draw.choice([evil, [evil], {evil: evil}, 1e308])}
    data["provenance"] |= {evil: {evil: [evil]}, "created_at": draw.choice([evil, 5, None, [evil], "2099"])}
    data["reason"] = draw.choice(TEXTS)
    data["cell"]["method"] = draw.choice(TEXTS)
    return _dumped(data)


def _values(draw: random.Random, data: Any) -> bytes:
    """Numbers and types that do not belong there."""
    for box, key in draw.sample(_places(data), draw.randint(1, 3)):
        box[key] = draw.choice(VALUES)
    for measured in data["measured"] if isinstance(data.get("measured"), list) else ():
        if isinstance(measured, dict) and draw.random() < 0.7:
            measured["value"] = draw.choice([each for each in VALUES if isinstance(each, float)])
    return _dumped(data)


def _keys(draw: random.Random, data: Any) -> bytes:
    """Keys that are gone, new, or there twice."""
    places = [(box, key) for box, key in _places(data) if isinstance(box, dict)]
    box, key = draw.choice(places)
    if draw.random() < 0.4:
        del box[key]
    elif draw.random() < 0.5:
        box[draw.choice(TEXTS)] = draw.choice(VALUES)
    text = _dumped(data)
    return text[:-1] + b',"row":"../x","sweep":"<script>alert(1)</script>"}' if draw.random() < 0.5 else text


def _shape(draw: random.Random, data: Any) -> bytes:
    """Much, deep, newer, older, or of another kind."""
    depth = draw.choice([5, 150, 190, 250])
    nested: Any = draw.choice(TEXTS)
    for _ in range(depth):
        nested = draw.choice([[nested], {"k": nested}])
    kind = draw.randrange(7)
    if kind == 0:
        data["provenance"]["deep"] = nested
    elif kind == 1:
        data["cell"]["fields"] = {"deep": nested}
    elif kind == 2:
        points = [
            {name: draw.choice([x for x in VALUES if isinstance(x, float)]) for name in ("step", "tokens", "loss")}
        ]
        data["curve"] = points * draw.choice([1, 50, 3000])
    elif kind == 3:
        data["measured"] = data["measured"] * draw.choice([2, 200])
    elif kind == 4:
        data["schema_version"] = draw.choice([-1, 0, 1, 3, 99, 10**30, "2", 2.5, True, None])
    elif kind == 5:
        data["costs"] = [{"stage": draw.choice(TEXTS), "key": "k", "worker_s": draw.choice([0, 1e308, 5])}] * 500
    else:
        return _dumped(draw.choice([[data], "record", 5, None, {"records": [data]}, {}]))
    return _dumped(data)


def _bytes(draw: random.Random, data: Any) -> bytes:
    """Cut, flipped, another encoding, not JSON."""
    text = _dumped(data)
    place = draw.randrange(len(text))
    return draw.choice(
        [
            text[:place],
            text[:place] + bytes([draw.randrange(256)]) + text[place + 1 :],
            text.decode().encode("utf-16"),
            b"\xef\xbb\xbf" + text,
            text + text,
            b"",
            b"\x00" * 50,
            draw.randbytes(500),
            b"[" * 5000,
            b'{"a":' * 5000,
            text.replace(b'"gpt2"', b'"\\ud800"'),
            b"<html><script>alert(1)</script></html>",
        ]
    )
