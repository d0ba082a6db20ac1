"""Two workers against one, each with one thread, the same global batch: `python tests/bench/bench_workers.py`.

Printed: tokens/s and the speed-up for each ZeRO stage. Gradients go over gloo on the loopback device.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
from contextlib import closing
from statistics import median
from typing import Any

import torch
from bench_distillation import LAYERS, LENGTH, RATE, USUAL, Clock, model

from harness.engine.batches import TokenBatches
from harness.engine.objective import LanguageModelObjective
from harness.engine.trainer import train
from harness.stage import Execution, NoCheckpoints, Ranks
from methods.interface import Tap
from methods.recipe import Losses, Optimisation

ROWS = 16


def worker(vocabulary: int, zero_stage: int, steps: int) -> list[float]:
    """Seconds of each step but the first on this worker."""
    import numpy as np

    torch.set_num_threads(1)
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    taps = [Tap(teacher=f"transformer.h.{i}", student=f"transformer.h.{i}") for i in range(LAYERS)]
    target = LanguageModelObjective(model(vocabulary, 0), model(vocabulary, 1), Losses(**USUAL), taps)
    tokens = np.random.default_rng(0).integers(0, vocabulary, 200_000)
    clock = Clock()
    train(
        target, TokenBatches(tokens, LENGTH, LENGTH * ROWS, seed=0),
        Optimisation(learning_rate=RATE, schedule="constant"), steps, ranks=Ranks(rank, world, rank),
        execution=Execution(micro_batch=ROWS // 2, zero_stage=zero_stage, workers=world), checkpoints=NoCheckpoints(),
        progress=lambda **_: clock.tick(),
    )  # fmt: skip
    return clock.steps


def gang(world: int, arguments: argparse.Namespace, zero_stage: int) -> float:
    """Tokens/s of the global batch."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, __file__, "--worker", "--vocabulary", str(arguments.vocabulary)]
    command += ["--steps", str(arguments.steps), "--zero-stage", str(zero_stage)]
    shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen(command, env=os.environ | shared | {"RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
        for rank in range(world)
    ]
    said = [process.communicate()[0] for process in workers]
    assert all(process.returncode == 0 for process in workers)
    steps: list[float] = json.loads(said[0].splitlines()[-1])
    return LENGTH * ROWS / median(steps[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--zero-stage", type=int)
    parser.add_argument("--worker", action="store_true")
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(worker(arguments.vocabulary, arguments.zero_stage, arguments.steps)))
        return
    for zero_stage in [0, 2, 3] if arguments.zero_stage is None else [arguments.zero_stage]:
        rates: dict[int, list[Any]] = {1: [], 2: []}
        for _ in range(arguments.rounds):
            for world, found in rates.items():
                found.append(gang(world, arguments, zero_stage))
        one, two = (max(rates[world]) for world in (1, 2))
        print(f"zero {zero_stage}: 1 worker {one:6.0f} tokens/s, 2 workers {two:6.0f}, speed-up {two / one:.2f}")


if __name__ == "__main__":
    main()
