"""Checkpoints free of world size and ZeRO stage: full fp32 weights and moments as safetensors, the rest as JSON.

A directory holds `weight.safetensors`, `exp_avg.safetensors`, `exp_avg_sq.safetensors` (parameter name -> full tensor)
and `state.json` (step, tokens, seconds, curve). Data order and dropout follow from the step: no random state is kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from harness.engine.deepspeed_engine import MOMENTS, Engine
from harness.stage import Checkpoints, StageFailure

KINDS = ("weight", *MOMENTS)


class ForeignCheckpoint(StageFailure):
    """The checkpoint found is of another model, or cannot be read."""

    failure_class = "data"


@dataclass(kw_only=True)
class TrainState:
    """How far a training stage is."""

    step: int = 0
    """Optimiser steps done."""
    tokens: int = 0
    seconds: float = 0.0
    """Spent in steps by all attempts so far."""
    curve: list[dict[str, float]] = field(default_factory=list)


def save(engine: Engine, state: TrainState, checkpoints: Checkpoints) -> str:
    """Write a checkpoint; collective, rank 0 writes. Returns why it could not be written, else nothing.

    A full disk costs the checkpoint and not the training: the workers go on together, the older ones stay.
    """
    tensors = ((kind, engine.full_state(kind)) for kind in KINDS)
    if engine.ranks.rank > 0:
        for _ in tensors:
            pass
        return ""
    failed = ""
    try:
        with checkpoints.writing(state.step) as directory:
            _write(directory, tensors, state)
    except (OSError, SafetensorError) as error:
        failed = str(error)
    for _ in tensors:  # What is left is collective: the other workers are waiting in it.
        pass
    return failed


def _write(directory: Path, tensors: Iterator[tuple[str, dict[str, Tensor]]], state: TrainState) -> None:
    for kind, named in tensors:
        save_file(named, directory / f"{kind}.safetensors")
    (directory / "state.json").write_text(json.dumps(asdict(state)))


def load_weights(objective: nn.Module, directory: Path) -> TrainState:
    """Put a checkpoint's weights into the objective; before an engine is made of it.

    Raises:
        ForeignCheckpoint: its names or shapes are not the objective's.
    """
    trained = {name: p for name, p in objective.named_parameters() if p.requires_grad}
    try:
        state = TrainState(**json.loads((directory / "state.json").read_text()))
        with ExitStack() as stack:
            files = [stack.enter_context(safe_open(directory / f"{kind}.safetensors", "pt")) for kind in KINDS]
            for file in files:
                names: list[str] = file.keys()
                _compare({name: file.get_slice(name).get_shape() for name in names}, trained, directory)
            with torch.no_grad():
                for name, parameter in trained.items():
                    parameter.copy_(files[0].get_tensor(name))
    except (OSError, SafetensorError, json.JSONDecodeError, TypeError) as error:
        raise ForeignCheckpoint(f"checkpoint {directory} cannot be read: {error}; remove it") from error
    return state


def _compare(found: dict[str, list[int]], trained: dict[str, nn.Parameter], directory: Path) -> None:
    wrong = next(iter(sorted(found.keys() ^ trained.keys())), None)
    if wrong is not None:
        what = f"it has {wrong}" if wrong in found else f"it has no {wrong}"
        raise ForeignCheckpoint(f"checkpoint {directory} is of another model: {what}; remove it")
    for name, parameter in trained.items():
        if found[name] != list(parameter.shape):
            shapes = f"{name} is {tuple(found[name])} there and {tuple(parameter.shape)} here"
            raise ForeignCheckpoint(f"checkpoint {directory} is of another model: {shapes}; remove it")


def load_moments(directory: Path) -> dict[str, dict[str, Tensor]]:
    """A checkpoint's optimiser moments, for `Engine.load_moments`."""
    return {kind: load_file(directory / f"{kind}.safetensors") for kind in MOMENTS}
