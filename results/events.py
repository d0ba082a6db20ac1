"""Telemetry of training in the store: JSON lines, one object per batch, because object stores cannot append.

events/<stage>/<key>/<attempt>/<number>.jsonl
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from results.store import Store

Line = Mapping[str, float]


def write_batch(store: Store, stage: str, key: str, attempt: str, number: int, lines: Sequence[Line]) -> None:
    """Write the `number`-th batch of an attempt's lines."""
    text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
    store.write(f"events/{stage}/{key}/{attempt}/{number:06d}.jsonl", text.encode())


def read_events(store: Store, stage: str, key: str) -> list[Line]:
    """One line per optimiser step, of the newest attempt that got there, in the order of the steps."""
    home = f"events/{stage}/{key}"
    found: dict[float, Line] = {}
    for attempt in store.names(home):
        for name in store.names(f"{home}/{attempt}"):
            for text in store.read_bytes(f"{home}/{attempt}/{name}").decode().splitlines():
                line: Line = json.loads(text)
                found[line["step"]] = line
    return [found[step] for step in sorted(found)]
