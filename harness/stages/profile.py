"""The speed card: latency at batch 1, throughput, peak memory; factorised and materialised, on this hardware."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from harness.stage import Context
from methods import student

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LENGTH = 128
BATCH = 16
REPEATS = 15


def run(context: Context) -> Mapping[str, Any]:
    """Times of a forward pass over `LENGTH` tokens: the median of `REPEATS` after three to warm up."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = student.load(context.inputs["model"] / "model").eval().to(device)
    latency_s, throughput_s = _pass_s(model, 1), _pass_s(model, BATCH)
    peak = (
        torch.cuda.max_memory_allocated()
        if device == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    dense = student.materialise(model).eval().to(device)
    dense_latency_s, dense_throughput_s = _pass_s(dense, 1), _pass_s(dense, BATCH)
    return {
        "hardware": context.params["hardware"],
        "latency_ms": latency_s * 1e3,
        "throughput_tokens_per_s": BATCH * LENGTH / throughput_s,
        "materialised_latency_ms": dense_latency_s * 1e3,
        "materialised_throughput_tokens_per_s": BATCH * LENGTH / dense_throughput_s,
        "peak_memory_bytes": int(peak),
    }


@torch.no_grad()
def _pass_s(model: PreTrainedModel, batch: int) -> float:
    length = min(LENGTH, model.config.max_position_embeddings)
    ids = torch.arange(batch * length, device=model.device).reshape(batch, length) % model.config.vocab_size
    times = []
    for _ in range(REPEATS + 3):
        started = time.perf_counter()
        model(input_ids=ids, use_cache=False)
        if ids.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[3:])
