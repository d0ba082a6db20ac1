"""A training of a few steps for tests of the engine: a tiny student and teacher, and checkpoints in a directory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from harness.engine.batches import TokenBatches
from harness.engine.objective import LanguageModelObjective
from harness.engine.trainer import TrainResult, train
from harness.stage import Execution, NoCheckpoints
from methods.interface import Tap
from methods.recipe import Losses, Optimisation

PARTITION_ALL = {"zero_optimization": {"stage3_param_persistence_threshold": 0}}
RECIPE = Optimisation(learning_rate=1e-2, weight_decay=0.1, deepspeed=PARTITION_ALL)
ALL = Losses(ce=1.0, kd=1.0, taps=1.0)
TAPS = [
    Tap(teacher="transformer.h.1", student="transformer.h.1", loss="cosine"),
    Tap(teacher="transformer.h.0.attn", student="transformer.h.0.attn", kind="attention", loss="kl"),
]


def model(seed: int = 0, cls: Any = GPT2LMHeadModel, **changes: Any) -> Any:
    torch.manual_seed(seed)
    shape = {"vocab_size": 61, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16}
    tokens = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    quiet = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return cls(GPT2Config(**(shape | tokens | quiet | changes)))


def objective(losses: Losses = ALL, **changes: Any) -> LanguageModelObjective:
    return LanguageModelObjective(model(0, **changes), model(1), losses, TAPS)


def batches() -> TokenBatches:
    return TokenBatches(np.random.default_rng(0).integers(0, 61, 1000), 8, 64, seed=0)


class Kept:
    """Checkpoints in a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def latest(self) -> tuple[int, Path] | None:
        done = sorted(self.root.glob("*"), key=lambda path: int(path.name))
        return (int(done[-1].name), done[-1]) if done else None

    @contextmanager
    def writing(self, step: int) -> Iterator[Path]:
        (self.root / str(step)).mkdir(parents=True)
        yield self.root / str(step)


class Interrupted(Exception):
    pass


def interrupt_at(step: int) -> Any:
    def progress(*, done: int, total: int, **numbers: float) -> None:
        if done == step:
            raise Interrupted

    return progress


def run(target: Any, steps: int = 6, recipe: Any = RECIPE, data: Any = None, **options: Any) -> TrainResult:
    options = {"execution": Execution(), "checkpoints": NoCheckpoints()} | options
    return train(target, data or batches(), recipe, steps, **options)


def losses_of(result: TrainResult) -> list[float]:
    return [line["loss"] for line in result.curve]
