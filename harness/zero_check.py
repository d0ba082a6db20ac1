"""The kit's check that needs the engine: training partitioned by ZeRO-3 equals training in one piece."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import torch

from harness.engine.batches import TokenBatches
from harness.engine.objective import LanguageModelObjective
from harness.engine.trainer import train
from harness.stage import Execution, NoCheckpoints
from methods import student as students
from methods.conformance import Bench, Check
from methods.conformance.bench import logits
from methods.recipe import Losses, Optimisation

if TYPE_CHECKING:
    from transformers import PreTrainedModel

STEPS = 2
LOSS_TOLERANCE = 1e-5
"""Relative difference allowed between the losses of the two runs."""
UPDATE_TOLERANCE = 0.01
"""Mean difference allowed between a parameter of the two runs, as a fraction of how far AdamW moves an entry."""
RECIPE = Optimisation(
    learning_rate=1e-3, deepspeed={"zero_optimization": {"stage3_param_persistence_threshold": 0}}, schedule="constant"
)


def zero_round_trip(bench: Bench) -> Iterator[str]:
    """Two steps at stages 0 and 3 from the same student; then the partitioned one is saved and loaded."""
    sample = bench.samples[0]
    with TemporaryDirectory() as folder:
        students.save(sample.student, Path(folder) / "start")
        whole, expected = _trained(bench, Path(folder) / "start", zero_stage=0)
        try:
            gathered, losses = _trained(bench, Path(folder) / "start", zero_stage=3)
        except RuntimeError as error:
            yield (
                f"{sample.at} training fails under ZeRO-3 alone ({str(error).partition(chr(10))[0]});"
                " does a layer read another module's parameters?"
            )
            return
        students.save(gathered, Path(folder) / "end")
        loaded = students.load(Path(folder) / "end")
    for step, (ours, theirs) in enumerate(zip(losses, expected, strict=True), 1):
        if not abs(ours - theirs) <= LOSS_TOLERANCE * abs(theirs):
            yield (
                f"{sample.at} the loss of step {step} is {ours:.6f} under ZeRO-3 and {theirs:.6f} in one piece;"
                " does a layer read another module's parameters?"
            )
    plain = dict(whole.named_parameters())
    for name, parameter in gathered.named_parameters():
        off = float((parameter - plain[name]).detach().double().abs().mean()) / (STEPS * RECIPE.learning_rate)
        if not off <= UPDATE_TOLERANCE:
            yield f"{sample.at} {name} after {STEPS} steps under ZeRO-3 is {off:.0%} of its way from where it should be"
    if not torch.equal(logits(loaded, bench.tokens), logits(gathered.eval(), bench.tokens)):
        yield f"{sample.at} the student trained under ZeRO-3 computes other logits once saved and loaded"


def _trained(bench: Bench, directory: Path, *, zero_stage: int) -> tuple[PreTrainedModel, list[float]]:
    student = students.load(directory)
    stream = bench.source.tokens(batch=64).flatten().numpy()
    length = bench.tokens.shape[1]
    batches = TokenBatches(np.asarray(stream), length, 4 * length, seed=0)
    objective = LanguageModelObjective(student, None, Losses(ce=1.0))
    result = train(
        objective, batches, RECIPE, STEPS, execution=Execution(zero_stage=zero_stage), checkpoints=NoCheckpoints()
    )
    return student, [line["loss"] for line in result.curve]


ZERO_CHECK = Check(title="a ZeRO-3 round trip is exact", run=zero_round_trip, fast=False)
