"""One statistic of the teacher on training text, shared by every method that needs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from harness.stage import Context, StageFailure
from methods import student
from methods.calibration import measure


def run(context: Context) -> Mapping[str, Any]:
    """Write `statistic.safetensors`: module path -> value in float64.

    Raises:
        StageFailure: the training text is shorter than one sequence, or a value is not finite.
    """
    model = student.load(context.inputs["teacher"] / "model").to("cuda" if context.execution.gpus else "cpu")
    tokens = np.load(context.inputs["tokens"] / "train.npy", mmap_mode="r", allow_pickle=False)
    sequences = drawn_sequences(tokens, **context.params["calibration"])
    total = len(sequences)
    batches = [torch.from_numpy(each[None].astype(np.int64)) for each in sequences]
    found = measure(context.params["statistic"], model, batches, lambda done: context.progress(done=done, total=total))
    for path, value in found.items():
        if not torch.isfinite(value).all():
            raise StageFailure(f"{context.params['statistic']} of {path} is not finite (NaN or infinity)")
    save_file({path: value.contiguous() for path, value in found.items()}, context.output / "statistic.safetensors")
    return {"calibration_tokens": int(sequences.size)}


def drawn_sequences(tokens: np.ndarray, sequences: int, sequence_length: int, seed: int) -> np.ndarray:
    """`sequences` different windows (rows) of the stream, in its order; all there are where it holds fewer.

    Raises:
        StageFailure: the stream is shorter than one window.
    """
    windows = len(tokens) // sequence_length
    if not windows:
        raise StageFailure(
            f"calibration: sequence_length {sequence_length} is more than the {len(tokens)} tokens of text"
        )
    chosen = np.random.default_rng(seed).permutation(windows)[:sequences]
    return np.stack([tokens[i * sequence_length : (i + 1) * sequence_length] for i in sorted(chosen)])
