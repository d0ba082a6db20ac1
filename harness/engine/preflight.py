"""Whether a training stage fits into memory, decided before anything is spent on it; and what to change if not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import torch
import torch.distributed as dist

from harness.engine.memory import Estimate, Workload, workload
from harness.engine.objective import Objective
from harness.engine.process_group import device_of, join_process_group
from harness.engine.shares import Rows, divisors
from harness.engine.without_values import reads_values
from harness.stage import Execution, OutOfMemory, Ranks
from methods.recipe import Optimisation

PROCESS_BYTES = 3 * 2**28
"""What a worker takes before it loads a model: interpreter, torch, transformers, DeepSpeed."""
CGROUPS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes"),
)
"""Where a container's limit and use stand, in both versions."""


def preflight(
    objective: Objective,
    batch: Rows,
    optimisation: Optimisation,
    execution: Execution,
    ranks: Ranks,
    micro: int,
) -> int:
    """The micro-batch to train with: `micro`, or the largest that fits where `execution` leaves the choice.

    Collective: all workers take the smallest that one of them finds.

    Raises:
        OutOfMemory: on every worker, when one of them has too little memory for a single row, or for the micro-batch
            that was asked for; it names the largest that fits.
    """
    load = workload(objective, batch, optimisation, execution, ranks)
    limit = _limit(objective, execution, ranks)
    try:
        found = largest_micro(load, micro, limit)
    except RuntimeError as error:
        if reads_values(error):
            return micro  # nothing is known of it: an out-of-memory halves the micro-batch
        raise
    if ranks.world > 1:
        device = device_of(execution, ranks)
        join_process_group(device, ranks, execution.collective_timeout_s)
        smallest = torch.tensor(found, device=device)
        dist.all_reduce(smallest, dist.ReduceOp.MIN)
        found = int(smallest)
    if not found or (execution.micro_batch and found < micro):
        wanted = micro if execution.micro_batch else 1
        reason = f"out of memory before the start: micro_batch {wanted} {shortage(load.estimate(wanted), limit)}"
        raise OutOfMemory(f"{reason}; {suggestion(load, micro, limit)}", found or None)
    return found


def largest_micro(load: Workload, micro: int, limit: int) -> int:
    """The largest divisor of a worker's share, at most `micro`, whose peak is within `limit` bytes; 0 if none is."""
    share = load.batch.rows // load.workers
    sizes = (size for size in reversed(divisors(share)) if size <= micro)
    return next((size for size in sizes if load.estimate(size).total_bytes <= limit), 0)


def shortage(estimate: Estimate, limit: int) -> str:
    """`needs about 9.1 GiB a worker (activations 6.2, optimiser 1.4, weights 0.7), 8.0 GiB are there`."""
    largest = sorted(estimate.parts.items(), key=lambda part: -part[1])[:3]
    parts = ", ".join(f"{name} {gib(size)}" for name, size in largest)
    return f"needs about {gib(estimate.total_bytes)} GiB a worker ({parts}), {gib(limit)} GiB are there"


def suggestion(load: Workload, micro: int, limit: int) -> str:
    """The first change of a stage's resources that makes it fit, the mildest first."""
    for change, changed, rows in _changes(load, micro):
        fitting = largest_micro(changed, rows, limit)
        if fitting:
            smaller = f"micro_batch: {fitting}" if fitting < micro else ""
            return "try " + ", ".join(filter(None, (change, smaller)))
    return "no change of its resources makes it fit: give it more memory a worker or a smaller model"


def _changes(load: Workload, micro: int) -> Iterator[tuple[str, Workload, int]]:
    """A change in words, the stage with it, and the micro-batch to start from; each keeps the ones before."""
    yield "", load, micro
    words, execution = [], replace(load.execution, activation_checkpointing=True)
    if not load.execution.activation_checkpointing:
        words.append("activation_checkpointing: true")
        yield ", ".join(words), replace(load, execution=execution), micro
    if execution.gpus and not execution.offload:
        execution = replace(execution, zero_stage=max(1, execution.zero_stage), offload=True)
        words.append("offload: true")
        yield ", ".join([*words, f"zero_stage: {execution.zero_stage}"]), replace(load, execution=execution), micro
    execution = replace(execution, zero_stage=3, shard_teacher=True)
    words += ["zero_stage: 3", *(["shard_teacher: true"] if load.teacher else [])]
    for workers in range(load.workers, load.batch.rows + 1):
        if workers > 1 and load.batch.rows % workers == 0:
            more = [f"workers: {workers}"] if workers > load.workers else []
            spread = replace(load, execution=replace(execution, workers=workers), workers=workers)
            yield ", ".join([*more, *words]), spread, min(micro, load.batch.rows // workers)


def _limit(objective: Objective, execution: Execution, ranks: Ranks) -> int:
    """Bytes that this worker may come to hold: what is free, and what its models take already."""
    device = device_of(execution, ranks)
    models = [model for model in (objective.student, objective.teacher) if model is not None]
    there = [each for model in models for each in model.parameters() if each.device.type == device.type]
    held: int = sum(parameter.numel() * parameter.element_size() for parameter in there)
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused + held
    here = int(os.environ.get("LOCAL_WORLD_SIZE", ranks.world)) if ranks.world > 1 else 1
    free = available_bytes() // here
    if execution.memory_bytes is not None:
        free = min(free, execution.memory_bytes - int(psutil.Process().memory_info().rss))
    return free + held


def available_bytes() -> int:
    """Host memory that can still be taken: the machine's, or the container's where that is less."""
    free = int(psutil.virtual_memory().available)
    for directory, limit, used in CGROUPS:
        try:
            lines = (line.split() for line in (directory / "memory.stat").read_text().splitlines())
            cache = max(int(size) for name, size in lines if name.removeprefix("total_") == "inactive_file")
            most, held = int((directory / limit).read_text()), int((directory / used).read_text())
        except (OSError, ValueError):
            continue  # not this version, or no limit
        free = min(free, most - held + cache)
    return max(0, free)


def gib(size: float) -> str:
    """Bytes in GiB, two digits below ten."""
    value = size / 2**30
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"
