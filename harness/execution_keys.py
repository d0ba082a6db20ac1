"""Which raw DeepSpeed keys say where a stage runs, and which change its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from harness.stage import Execution
from methods.recipe import Optimiser

EXECUTION_KEYS = frozenset(
    {
        "activation_checkpointing",
        "aio",
        "autotuning",
        "comms_logger",
        "communication_data_type",
        "csv_monitor",
        "dump_state",
        "flops_profiler",
        "memory_breakdown",
        "steps_per_print",
        "tensorboard",
        "wall_clock_breakdown",
        "zero_optimization",
    }
)
"""Recorded, not hashed; every other raw key is identity."""


def split_deepspeed(recipe: Optimiser, execution: Execution) -> tuple[Mapping[str, Any], Execution]:
    """The recipe as identity (without execution keys), and the execution that carries them."""
    given = recipe.deepspeed
    identity = recipe.model_dump() | {"deepspeed": {k: v for k, v in given.items() if k not in EXECUTION_KEYS}}
    carried = {k: v for k, v in given.items() if k in EXECUTION_KEYS}
    return identity, replace(execution, deepspeed=carried)
