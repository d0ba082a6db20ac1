"""A model under one protocol that does not train it: perplexity, zero-shot."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import AutoTokenizer

from harness.stage import Context, StageFailure
from methods import student


def run(context: Context) -> Mapping[str, Any]:
    """Write `items.parquet`; return the protocol's metrics.

    Raises:
        StageFailure: a metric is not finite, or the task is another one here than on the driver.
    """
    module, _, name = context.params["target"].partition(":")
    protocol = getattr(import_module(module), name)(**context.params.get("fields", {}))
    if protocol.name != context.params["task"]:
        raise StageFailure(f"{context.params['task']} was asked for, and what is installed here is {protocol.name}")
    source = context.inputs["model"] / "model"
    model = student.load(source).eval().to("cuda" if context.execution.gpus else "cpu")
    found = protocol.measure(model, AutoTokenizer.from_pretrained(source), context.mirror)
    bad = [metric for metric, value in found.metrics.items() if not torch.isfinite(torch.tensor(value))]
    if bad:
        raise StageFailure(f"{bad[0]} is not finite")
    if found.items:
        pq.write_table(pa.table(dict(found.items)), context.output / "items.parquet")
    return {"metrics": dict(found.metrics), "details": dict(found.details)}
