"""The same loss curve everywhere: `python tests/bench/bench_layouts.py`.

50 steps of distillation with taps, fp32, on 1, 2 and 4 workers over gloo, at ZeRO 0 to 3, with two micro-batches, with
and without dropout: the largest relative difference of the loss from one worker at ZeRO 0.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "harness"))
from layout_worker import curves

STEPS = 50
MICRO_BATCHES = (1, 2)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for dropout in (0.0, 0.1):
            found = {}
            for world in (1, 2, 4):
                runs = [
                    {
                        "name": f"{world} {stage} {micro}",
                        "steps": STEPS,
                        "zero_stage": stage,
                        "micro_batch": micro,
                        "dropout": dropout,
                        "shard_teacher": stage == 3 and micro == 1,
                    }
                    for stage in range(4)
                    for micro in MICRO_BATCHES
                ]
                found |= curves(world, Path(folder) / f"{world}-{dropout}", runs)
            show(dropout, found)


def show(dropout: float, found: dict[str, list[float]]) -> None:
    reference = found[f"1 0 {MICRO_BATCHES[0]}"]
    shown = f"loss {reference[0]:.3f} -> {reference[-1]:.3f}"
    print(f"\ndropout {dropout:g}, {shown}; at ZeRO 3 and micro-batch 1 the teacher is sharded")
    print("workers  micro-batch   ZeRO 0   ZeRO 1   ZeRO 2   ZeRO 3")
    for world in (1, 2, 4):
        for micro in MICRO_BATCHES:
            line = [apart(found[f"{world} {stage} {micro}"], reference) for stage in range(4)]
            print(f"{world:7}  {micro:11}  " + "  ".join(f"{each:7.1e}" for each in line))


def apart(curve: list[float], reference: list[float]) -> float:
    return max(abs(a - b) / abs(b) for a, b in zip(curve, reference, strict=True))


if __name__ == "__main__":
    main()
