"""What a job asks of a cluster, and whether the cluster's nodes can ever give it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.stage import Execution

GIB = 2**30
_NAMES = {"CPU": "CPUs", "GPU": "GPUs", "memory": "GiB of memory"}


def per_worker(execution: Execution) -> dict[str, float]:
    """Ray's resources for one worker, `memory` in bytes."""
    asked: dict[str, float] = {"CPU": execution.cpus}
    if execution.gpus:
        asked["GPU"] = execution.gpus
    if execution.memory_bytes:
        asked["memory"] = execution.memory_bytes
    return asked


def shortfall(execution: Execution, nodes: Sequence[Mapping[str, float]]) -> str | None:
    """Why no scheduling of the job's workers on `nodes` (their total resources) exists; None when one does."""
    asked = per_worker(execution)
    for name, amount in asked.items():
        largest = max((node.get(name, 0) for node in nodes), default=0)
        if amount > largest:
            return f"asked {_amount(name, amount)} {_NAMES[name]}, the largest node has {_amount(name, largest)}"
    places = sum(_places(asked, node) for node in nodes)
    if places < execution.workers:
        return f"asked {execution.workers} workers, the cluster has room for {places}"
    return None


def _places(asked: Mapping[str, float], node: Mapping[str, float]) -> int:
    """How many such workers fit on an empty node."""
    return min((int(node.get(name, 0) // amount) for name, amount in asked.items() if amount), default=10**6)


def _amount(name: str, amount: float) -> str:
    return f"{amount / GIB:.1f}" if name == "memory" else f"{amount:g}"
