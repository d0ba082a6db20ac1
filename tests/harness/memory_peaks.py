"""A process that trains and prints, per case, the bytes that were estimated and those that it came to take.

The C library is told to give freed blocks back (MALLOC_MMAP_THRESHOLD_), so that the resident set is what tensors take.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from engine_fixture import TAPS, model, run

from harness.engine.batches import TokenBatches
from harness.engine.memory import workload
from harness.engine.objective import LanguageModelObjective
from harness.stage import Execution, Ranks
from methods.recipe import Losses, Optimisation

SHAPE = {"vocab_size": 4096, "n_embd": 256, "n_layer": 4, "n_head": 4, "n_positions": 128}
TAUGHT = {"losses": {"ce": 0.5, "kd": 0.5, "taps": 0.1}}
CASES: dict[str, dict[str, Any]] = {
    "one row": {"micro_batch": 1},
    "four rows": {"micro_batch": 4},
    "many rows": {"micro_batch": 16},
    "zero 1": {"micro_batch": 4, "zero_stage": 1},
    "zero 2": {"micro_batch": 4, "zero_stage": 2},
    "zero 3": {"micro_batch": 4, "zero_stage": 3},
    "zero 2, checkpointing": {"micro_batch": 16, "zero_stage": 2, "activation_checkpointing": True},
    "bf16": {"micro_batch": 16, "precision": "bf16"},
    "checkpointing": {"micro_batch": 16, "activation_checkpointing": True},
    "taught": {"micro_batch": 4} | TAUGHT,
    "taught, checkpointing": {"micro_batch": 16, "activation_checkpointing": True} | TAUGHT,
}


def peak(case: dict[str, Any], shape: dict[str, int]) -> tuple[int, int]:
    """Bytes estimated and measured of two steps of a training."""
    fields = dict(case)
    losses = Losses(**fields.pop("losses", {}))
    recipe = Optimisation(learning_rate=1e-4, precision=fields.pop("precision", "fp32"))
    execution = Execution(**fields)
    gc.collect()
    before = resident("VmRSS")
    teacher = model(1, **shape) if losses.needs_teacher else None
    target = LanguageModelObjective(model(0, **shape), teacher, losses, TAPS)
    length = shape["n_positions"]
    data = TokenBatches(np.random.default_rng(0).integers(0, shape["vocab_size"], 5000), length, 16 * length, seed=0)
    estimate = workload(target, data, recipe, execution, Ranks()).estimate(fields["micro_batch"]).total_bytes
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    run(target, 2, recipe, data, execution=execution)
    return estimate, resident("VmHWM") - before


def resident(which: str) -> int:
    """Bytes of the process that are in memory: now (VmRSS), or the most since the peak was cleared (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(which))) * 1024


if __name__ == "__main__":
    for warming in ("one row", *sys.argv[1:]):  # libraries that a case loads are not its own
        peak(CASES[warming] | {"micro_batch": 1}, SHAPE | {"n_embd": 16, "n_layer": 2, "n_positions": 16})
    print(json.dumps({name: peak(CASES[name], SHAPE) for name in sys.argv[1:]}))
