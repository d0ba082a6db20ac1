"""Where a worker computes, and the process group that it talks to the others through."""

from __future__ import annotations

import os
from datetime import timedelta

import torch
import torch.distributed as dist

from harness.stage import Execution, Ranks, StageFailure


def device_of(execution: Execution, ranks: Ranks) -> torch.device:
    """Where this worker computes: its own GPU if the stage was given GPUs, else the CPU."""
    if execution.gpus and torch.cuda.is_available():
        return torch.device("cuda", ranks.local_rank % torch.cuda.device_count())
    return torch.device("cpu")


def join_process_group(device: torch.device, ranks: Ranks, timeout_s: float) -> None:
    """Use the process group there is (torchrun's, Ray Train's, an earlier stage's); make one for a single process.

    A worker that waits longer than `timeout_s` for another in a group made here ends with an error.

    Raises:
        StageFailure: this is one of several workers and nothing connected them.
    """
    if dist.is_initialized():
        assert dist.get_world_size() == ranks.world, "the process group is not the stage's gang"
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    if ranks.world > 1:
        if "MASTER_ADDR" not in os.environ:
            raise StageFailure(f"{ranks.world} workers, but no process group and no MASTER_ADDR to make one")
        patience = timedelta(seconds=timeout_s)
        dist.init_process_group(backend, rank=ranks.rank, world_size=ranks.world, timeout=patience)
        return
    store = dist.HashStore()  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=0, world_size=1)
