"""The speed card: latency at batch 1, throughput, peak memory; factorised and materialised, on this hardware."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness.stage import Context
from methods import student

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LENGTH = 128
BATCH = 16
REPEATS = 15
FEWEST = 3
ENOUGH_S = 3.0
PROCESS = Path("/proc/self")


def run(context: Context) -> Mapping[str, Any]:
    """Median times of a forward pass over `LENGTH` tokens.

    One pass warms up, then `REPEATS` are timed, or as many as fit into `ENOUGH_S` seconds but `FEWEST` at least.
    """
    _forget_peak()
    device = "cuda" if context.execution.gpus else "cpu"
    model = student.load(context.inputs["model"] / "model").eval().to(device)
    tokens = BATCH * min(LENGTH, model.config.max_position_embeddings)
    latency_s, throughput_s = _pass_s(model, 1), _pass_s(model, BATCH)
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else _peak_resident_bytes()
    dense = student.materialise(model).eval().to(device)
    dense_latency_s, dense_throughput_s = _pass_s(dense, 1), _pass_s(dense, BATCH)
    return {
        "hardware": context.params["hardware"],
        "latency_ms": latency_s * 1e3,
        "throughput_tokens_per_s": tokens / throughput_s,
        "materialised_latency_ms": dense_latency_s * 1e3,
        "materialised_throughput_tokens_per_s": tokens / dense_throughput_s,
        "peak_memory_bytes": int(peak),
    }


def _forget_peak() -> None:
    """Start the peaks anew: this process may have run other stages."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    if PROCESS.is_dir():
        (PROCESS / "clear_refs").write_text("5")


def _peak_resident_bytes() -> int:
    """The process's largest resident set since then (off Linux: ever), interpreter and libraries included."""
    if not PROCESS.is_dir():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    status = (PROCESS / "status").read_text().splitlines()
    return int(next(line.split()[1] for line in status if line.startswith("VmHWM"))) * 1024


@torch.no_grad()
def _pass_s(model: PreTrainedModel, batch: int) -> float:
    length = min(LENGTH, model.config.max_position_embeddings)
    ids = torch.arange(batch * length, device=model.device).reshape(batch, length) % model.config.vocab_size
    times: list[float] = []
    while len(times) <= FEWEST or (len(times) <= REPEATS and sum(times) < ENOUGH_S):
        started = time.perf_counter()
        model(input_ids=ids, use_cache=False)
        if ids.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])
