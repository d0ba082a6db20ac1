"""A line of telemetry per optimiser step: what the loss curve says of it, and how fast and how large it was.

It is measured around training and never part of a result: no stage imports this module, so that its code is in no key.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cache

from harness.stage import Execution

PEAK_FLOPS = (
    ("H200", 989e12, 67e12),
    ("H100 NVL", 835e12, 60e12),
    ("H100 PCIe", 756e12, 51e12),
    ("H100", 989e12, 67e12),
    ("A100", 312e12, 19.5e12),
    ("L40S", 362e12, 91.6e12),
    ("A40", 149.7e12, 37.4e12),
)
"""Part of a GPU's name, and its published peaks in FLOP/s: bf16 without sparsity, fp32 without TF32. The first that
matches counts."""

CPU_MATRIX = 512
CPU_REPEATS = 20


class Meter:
    """Makes the lines of one worker's training stage.

    A line holds the point of the loss curve (step, tokens, loss, its parts, gradient_norm, learning_rate) and

    - `unix_time_s`: when the step ended;
    - `step_s`, `tokens_per_s`: of this step;
    - `model_flops_per_s`: the step's FLOPs, 3 forward passes of the student and 1 of the teacher, by its seconds;
    - `mfu`: the same by the peak of all workers, where that is known;
    - `memory_bytes`: this process's resident set; on a GPU the most that torch had allocated there.
    """

    def __init__(self, execution: Execution, precision: str) -> None:
        self.execution, self.precision = execution, precision
        self.flops = self.seconds = 0.0

    def line(
        self, point: Mapping[str, float], *, tokens: int, seconds: float, flops_per_token: float
    ) -> dict[str, float]:
        """The line on one step of `tokens` that took `seconds`."""
        line = {"unix_time_s": time.time(), **point, "step_s": seconds, "tokens_per_s": tokens / seconds}
        if flops_per_token:
            line["model_flops_per_s"] = tokens * flops_per_token / seconds
            self.flops += tokens * flops_per_token
            self.seconds += seconds
            if peak := self.peak():
                line["mfu"] = line["model_flops_per_s"] / peak
        line["memory_bytes"] = memory_bytes(self.execution)
        return line

    @property
    def mfu(self) -> float | None:
        """Model FLOPs utilisation of all steps so far; None before the first and where the peak is unknown."""
        peak = self.peak() if self.seconds else None
        return self.flops / self.seconds / peak if peak else None

    def peak(self) -> float | None:
        """FLOP/s that all workers of the stage could do together, or None."""
        one = peak_flops(_gpu_name(), self.precision) if _on_gpu(self.execution) else cpu_peak_flops(_threads())
        return one * self.execution.workers if one else None


def peak_flops(gpu: str, precision: str) -> float | None:
    """Published peak of a GPU by its name, FLOP/s; None for a part of one (MIG), and when it is not in the table."""
    found = (bf16 if precision == "bf16" else fp32 for name, bf16, fp32 in PEAK_FLOPS if name in gpu)
    return None if "MIG" in gpu else next(found, None)


@cache
def cpu_peak_flops(threads: int) -> float:
    """FLOP/s of the best of a few fp32 products of 512 x 512 matrices on so many torch threads; measured once.

    It is what bf16 is compared with, too: fp32 is what a CPU is fast at.
    """
    import torch

    matrix = torch.ones(CPU_MATRIX, CPU_MATRIX)
    best = float("inf")
    for _ in range(CPU_REPEATS):
        started = time.perf_counter()
        torch.mm(matrix, matrix)
        best = min(best, time.perf_counter() - started)
    return 2 * CPU_MATRIX**3 / best


def memory_bytes(execution: Execution) -> int:
    """Resident set of this process; on a GPU the most that torch had allocated there."""
    if _on_gpu(execution):
        import torch

        return int(torch.cuda.max_memory_allocated())
    import psutil

    return int(psutil.Process().memory_info().rss)


def _on_gpu(execution: Execution) -> bool:
    import torch

    return bool(execution.gpus) and torch.cuda.is_available()


@cache
def _gpu_name() -> str:
    import torch

    return torch.cuda.get_device_name()


def _threads() -> int:
    import torch

    return torch.get_num_threads()
