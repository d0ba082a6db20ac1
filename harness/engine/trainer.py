"""The training loop of every training stage: schedule, accumulation, checkpoints, divergence, progress."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from harness.engine import checkpoint
from harness.engine.batches import Batches
from harness.engine.checkpoint import TrainState
from harness.engine.deepspeed_engine import Engine
from harness.engine.objective import Objective
from harness.stage import Checkpoints, Diverged, Execution, Progress, Ranks, StageFailure, Telemetry, silent, unrecorded
from methods.recipe import Optimisation

MICRO_BATCH_TOKENS = {"cpu": 2**12, "cuda": 2**14}
"""Tokens of one forward pass of one worker, where `Execution.micro_batch` does not say how many rows."""


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a training stage reports: the loss at every step, and what it took over all attempts."""

    curve: list[dict[str, float]]
    """Per step: step (1 is the first), tokens so far, loss, its parts (ce, kd, taps), gradient_norm
    (before clipping), learning_rate."""
    tokens: int
    seconds: float


def train(
    objective: Objective,
    batches: Batches,
    optimisation: Optimisation,
    steps: int,
    *,
    execution: Execution = Execution(),  # noqa: B008
    ranks: Ranks = Ranks(),  # noqa: B008
    checkpoints: Checkpoints,
    progress: Progress = silent,
    telemetry: Telemetry = unrecorded,
    flops_per_token: float = 0.0,
    checkpoint_every_steps: int | None = None,
) -> TrainResult:
    """Train the objective's student in place for `steps` optimiser steps, from the newest checkpoint if there is one.

    Collective: every worker of the gang calls it with the same arguments. Afterwards the student holds the full fp32
    weights on every worker.

    Raises:
        StageFailure: the global batch cannot be shared by the workers or cut into the micro-batch asked for.
        Diverged: the loss or the gradient became NaN or infinite; all workers agree.
    """
    micro = micro_batch(batches, execution, ranks.world)
    resumed = checkpoints.latest()
    state = checkpoint.load_weights(objective, resumed[1]) if resumed else TrainState()
    engine = Engine(objective, optimisation, execution, ranks, rows=batches.rows, micro=micro)
    try:
        _agree(engine, state)
        if resumed:
            first = batches.micro_batches(0, rank=ranks.rank, world=ranks.world, micro=micro)
            engine.load_moments(checkpoint.load_moments(resumed[1]), state.step, first)
        due = _Due(execution.checkpoint_every_s, checkpoint_every_steps, steps)
        while state.step < steps:
            tokens, seconds = state.tokens, state.seconds
            _step(engine, batches, micro, state, learning_rate(optimisation, state.step, steps))
            telemetry(
                state.curve[-1],
                tokens=state.tokens - tokens,
                seconds=state.seconds - seconds,
                flops_per_token=flops_per_token,
            )
            progress(
                done=state.step, total=steps, loss=state.curve[-1]["loss"], tokens_per_s=state.tokens / state.seconds
            )
            if due.at(state.step, engine):
                checkpoint.save(engine, state, checkpoints)
    except BaseException:
        engine.abandon()
        raise
    engine.close()
    return TrainResult(curve=state.curve, tokens=state.tokens, seconds=state.seconds)


def learning_rate(optimisation: Optimisation, step: int, steps: int) -> float:
    """The rate of step 0, 1, ...: linear warm-up, then constant, linear or cosine down to `final_fraction`.

    With w warm-up steps, x = (step - w) / (steps - 1 - w), f = final_fraction: peak (step + 1) / w during warm-up, then
    peak (1 - (1 - f) x) or peak (f + (1 - f) (1 + cos(pi x)) / 2).
    """
    peak, final = optimisation.learning_rate, optimisation.final_fraction
    warmup = round(optimisation.warmup_fraction * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    x = (step - warmup) / max(1, steps - 1 - warmup)
    if optimisation.schedule == "linear":
        return peak * (1 - (1 - final) * x)
    if optimisation.schedule == "cosine":
        return peak * (final + (1 - final) * (1 + math.cos(math.pi * x)) / 2)
    return peak


def micro_batch(batches: Batches, execution: Execution, world: int) -> int:
    """Rows per forward pass of one worker: what `execution` says, else the largest divisor that fits.

    Raises:
        StageFailure: the workers' shares are not whole, or the micro-batch does not divide them.
    """
    if batches.rows % world:
        raise StageFailure(f"a global batch of {batches.rows} rows cannot be shared equally by {world} workers")
    share = batches.rows // world
    if execution.micro_batch:
        if share % execution.micro_batch:
            near = min(_divisors(share), key=lambda n: abs(n - (execution.micro_batch or 1)))
            raise StageFailure(
                f"micro_batch {execution.micro_batch} does not divide a worker's {share} rows of the global batch; "
                f"nearest: {near}"
            )
        return execution.micro_batch
    most = MICRO_BATCH_TOKENS["cuda" if execution.gpus else "cpu"] // batches.row_tokens
    return max(n for n in _divisors(share) if n <= max(1, most))


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def _step(engine: Engine, batches: Batches, micro: int, state: TrainState, rate: float) -> None:
    """One optimiser step, and its line in the curve."""
    started = time.perf_counter()
    parts = batches.micro_batches(state.step, rank=engine.ranks.rank, world=engine.ranks.world, micro=micro)
    means = engine.step(parts, rate)
    if not math.isfinite(means["loss"]):
        raise Diverged(state.step + 1)
    norm = engine.gradient_norm()
    if not math.isfinite(norm):
        raise Diverged(state.step + 1, "gradient norm")
    state.tokens += batches.tokens(state.step)
    state.step += 1
    state.seconds += time.perf_counter() - started
    point = {"step": state.step, "tokens": state.tokens, **means, "gradient_norm": norm, "learning_rate": rate}
    state.curve.append(point)


def _agree(engine: Engine, state: TrainState) -> None:
    """Refuse to go on when workers found different checkpoints; another attempt will find the same."""
    mine = float(state.step)
    if engine.summed({"step": mine})["step"] != mine * engine.ranks.world:
        raise OSError(f"worker {engine.ranks.rank} found a checkpoint at step {state.step}, another worker did not")


class _Due:
    """When to write a checkpoint: rank 0's clock decides for all, and never after the last step."""

    def __init__(self, every_s: float, every_steps: int | None, steps: int) -> None:
        self.every_s, self.every_steps, self.steps = every_s, every_steps, steps
        self.written = time.monotonic()

    def at(self, step: int, engine: Engine) -> bool:
        if step == self.steps:
            return False
        if self.every_steps:
            return step % self.every_steps == 0
        mine = engine.ranks.rank == 0 and time.monotonic() - self.written >= self.every_s
        due = bool(engine.summed({"due": float(mine)})["due"]) if engine.ranks.world > 1 else mine
        if due:
            self.written = time.monotonic()
        return due
