"""A model under one protocol that does not train it: perplexity, zero-shot."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
from transformers import AutoTokenizer

from harness.engine.process_group import device_of, join_process_group
from harness.stage import Context, StageFailure
from methods import student
from tasks.interface import Divisible, Measurement, Protocol, Run
from tasks.local import OfLocalText


def run(context: Context) -> Mapping[str, Any]:
    """Write `items.parquet`; return the protocol's metrics.

    Several workers share the items of a protocol that is `Divisible`; the first measures any other one alone.

    Raises:
        StageFailure: a metric is not finite, or the task is another one here than on the driver.
    """
    protocol = _protocol(context)
    shared = context.ranks.world > 1 and isinstance(protocol, Divisible)
    if context.ranks.rank > 0 and not shared:
        return {}
    found = _measure(context, protocol, shared=shared)
    bad = [metric for metric, value in found.metrics.items() if not math.isfinite(value)]
    if bad:
        raise StageFailure(f"{bad[0]} is not finite")
    if context.ranks.rank > 0:
        return {}
    if found.items:
        pq.write_table(pa.table(dict(found.items)), context.output / "items.parquet")
    return {"metrics": dict(found.metrics), "details": dict(found.details)}


def _protocol(context: Context) -> Protocol:
    module, _, name = context.params["target"].partition(":")
    protocol: Protocol = getattr(import_module(module), name)(**context.params.get("fields", {}))
    if protocol.name != context.params["task"]:
        raise StageFailure(f"{context.params['task']} was asked for, and what is installed here is {protocol.name}")
    text = context.params.get("text")
    return protocol.reading(Path(text)) if text and isinstance(protocol, OfLocalText) else protocol


def _measure(context: Context, protocol: Protocol, *, shared: bool) -> Measurement:
    device = device_of(context.execution, context.ranks)
    if shared:
        join_process_group(device, context.ranks, context.execution.collective_timeout_s)
    elif context.ranks.world > 1:
        context.warn(f"{context.params['task']} is measured by one of {context.ranks.world} workers: it is not shared")
    source = context.inputs["model"] / "model"
    model, tokenizer = student.load(source).eval().to(device), AutoTokenizer.from_pretrained(source)
    if not isinstance(protocol, Divisible):
        return protocol.measure(model, tokenizer, context.mirror)
    how = Run(
        batch=context.execution.micro_batch,
        progress=lambda done, total: context.progress(done=done, total=total),
        **(_of_gang(context, device) if shared else {}),
    )
    return protocol.measure(model, tokenizer, context.mirror, how)


def _of_gang(context: Context, device: torch.device) -> dict[str, Any]:
    return {"rank": context.ranks.rank, "world": context.ranks.world, "combine": _sum_over_workers(device)}


def _sum_over_workers(device: torch.device) -> Callable[[list[float]], list[float]]:
    """Adds up, in float64: where all but one of the terms are zero, exactly."""

    def combine(values: list[float]) -> list[float]:
        total = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(total)
        found: list[float] = total.tolist()
        return found

    return combine
