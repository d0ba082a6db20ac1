"""Checkpoints free of world size and ZeRO stage: full fp32 weights and moments as safetensors, the rest as JSON.

A directory holds `weight.safetensors`, `exp_avg.safetensors`, `exp_avg_sq.safetensors` (parameter name -> full tensor)
and `state.json` (step, tokens, seconds, curve). Data order and dropout follow from the step: no random state is kept.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from harness.engine.deepspeed_engine import MOMENTS, Engine
from harness.stage import Checkpoints


@dataclass(kw_only=True)
class TrainState:
    """How far a training stage is."""

    step: int = 0
    """Optimiser steps done."""
    tokens: int = 0
    seconds: float = 0.0
    """Spent in steps by all attempts so far."""
    curve: list[dict[str, float]] = field(default_factory=list)


def save(engine: Engine, state: TrainState, checkpoints: Checkpoints) -> None:
    """Write a checkpoint; collective, rank 0 writes."""
    if engine.ranks.rank > 0:
        for kind in ("weight", *MOMENTS):
            engine.full_state(kind)
        return
    with checkpoints.writing(state.step) as directory:
        for kind in ("weight", *MOMENTS):
            save_file(engine.full_state(kind), directory / f"{kind}.safetensors")
        (directory / "state.json").write_text(json.dumps(asdict(state)))


def load_weights(objective: nn.Module, directory: Path) -> TrainState:
    """Put a checkpoint's weights into the objective; before an engine is made of it."""
    weights = load_file(directory / "weight.safetensors")
    with torch.no_grad():
        for name, parameter in objective.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(weights[name])
    return TrainState(**json.loads((directory / "state.json").read_text()))


def load_moments(directory: Path) -> dict[str, dict[str, Tensor]]:
    """A checkpoint's optimiser moments, for `Engine.load_moments`."""
    return {kind: load_file(directory / f"{kind}.safetensors") for kind in MOMENTS}
