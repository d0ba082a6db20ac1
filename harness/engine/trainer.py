"""The training loop of every training stage: schedule, accumulation, checkpoints, divergence, progress."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from harness.engine import checkpoint
from harness.engine.batches import Batches
from harness.engine.checkpoint import TrainState
from harness.engine.deepspeed_engine import Engine
from harness.engine.objective import Objective
from harness.engine.preemption import watching
from harness.engine.preflight import preflight
from harness.engine.shares import micro_batch, smaller
from harness.stage import (
    Checkpoints,
    Diverged,
    Execution,
    OutOfMemory,
    Preempted,
    Progress,
    Ranks,
    Telemetry,
    is_out_of_memory,
    silent,
    unrecorded,
)
from methods.recipe import Optimisation


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a training stage reports: the loss at every step, and what it took over all attempts."""

    curve: list[dict[str, float]]
    """Per step: step (1 is the first), tokens so far, loss, its parts (ce, kd, taps), gradient_norm
    (before clipping), learning_rate."""
    tokens: int
    seconds: float
    micro_batch: int
    """Rows per forward pass of a worker."""


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
    warn: Callable[[str], None] = lambda _: None,
) -> TrainResult:
    """Train the objective's student in place for `steps` optimiser steps, from the newest checkpoint if there is one.

    Collective: every worker of the gang calls it with the same arguments. Afterwards the student holds the full fp32
    weights on every worker.

    Raises:
        StageFailure: the global batch cannot be shared by the workers or cut into the micro-batch asked for.
        ForeignCheckpoint: the checkpoint to go on from is of another model.
        Diverged: the loss or the gradient became NaN or infinite; all workers agree.
        OutOfMemory: with the micro-batch to try next.
        Preempted: SIGTERM came, to any worker; a checkpoint of the step is written.
    """
    micro = micro_batch(batches, execution, ranks.world)
    micro = preflight(objective, batches, optimisation, execution, ranks, micro)
    resumed = checkpoints.latest()
    state = checkpoint.load_weights(objective, resumed[1]) if resumed else TrainState()
    engine = Engine(objective, optimisation, execution, ranks, rows=batches.rows, micro=micro)
    try:
        _agree(engine, state)
        if resumed:
            first = batches.micro_batches(0, rank=ranks.rank, world=ranks.world, micro=micro)
            engine.load_moments(checkpoint.load_moments(resumed[1]), state.step, first)
        with watching() as asked_to_end:
            due = _Due(execution, steps, asked_to_end)
            while state.step < steps:
                spent = _step(engine, batches, micro, state, learning_rate(optimisation, state.step, steps))
                telemetry(state.curve[-1], tokens=spent[0], seconds=spent[1], flops_per_token=flops_per_token)
                progress(done=state.step, total=steps, **_numbers(state, micro, batches.rows // ranks.world))
                now, ending = due.at(state.step, engine)
                if now:
                    _save(engine, state, checkpoints, warn, ending=ending)
    except BaseException as error:
        engine.abandon()
        if is_out_of_memory(error):
            raise _out_of_memory(micro, batches.rows // ranks.world, error) from error
        raise
    engine.close()
    return TrainResult(curve=state.curve, tokens=state.tokens, seconds=state.seconds, micro_batch=micro)


def learning_rate(optimisation: Optimisation, step: int, steps: int) -> float:
    """The rate of step 0, 1, ...: linear warm-up, then constant, linear or cosine down to `final_fraction`.

    With w warm-up steps, x = (step - w) / (steps - 1 - w), f = final_fraction: peak (step + 1) / w during warm-up, then
    peak (1 - (1 - f) x) or peak (f + (1 - f) (1 + cos(pi x)) / 2).
    """
    peak, final = optimisation.learning_rate, optimisation.final_fraction
    warmup = optimisation.warmup(steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    x = (step - warmup) / max(1, steps - 1 - warmup)
    if optimisation.schedule == "linear":
        return peak * (1 - (1 - final) * x)
    if optimisation.schedule == "cosine":
        return peak * (final + (1 - final) * (1 + math.cos(math.pi * x)) / 2)
    return peak


def _step(engine: Engine, batches: Batches, micro: int, state: TrainState, rate: float) -> tuple[int, float]:
    """One optimiser step and its line in the curve; the tokens and seconds it took."""
    started = time.perf_counter()
    parts = batches.micro_batches(state.step, rank=engine.ranks.rank, world=engine.ranks.world, micro=micro)
    means = engine.step(parts, rate)
    if not math.isfinite(means["loss"]):
        raise Diverged(state.step + 1)
    norm = engine.gradient_norm()
    if not math.isfinite(norm):
        raise Diverged(state.step + 1, "gradient norm")
    tokens, seconds = batches.tokens(state.step), time.perf_counter() - started
    state.tokens, state.seconds, state.step = state.tokens + tokens, state.seconds + seconds, state.step + 1
    point = {"step": state.step, "tokens": state.tokens, **means, "gradient_norm": norm, "learning_rate": rate}
    state.curve.append(point)
    return tokens, seconds


def _agree(engine: Engine, state: TrainState) -> None:
    """Refuse to go on when workers found different checkpoints; another attempt will find the same."""
    mine = float(state.step)
    if engine.summed({"step": mine})["step"] != mine * engine.ranks.world:
        raise OSError(f"worker {engine.ranks.rank} found a checkpoint at step {state.step}, another worker did not")


def _numbers(state: TrainState, micro: int, share: int) -> dict[str, float]:
    """What a watcher is shown, and what the ledger knows of a worker that the system kills for its memory."""
    less = smaller(micro, share)
    next_try = {"smaller_micro_batch": less} if less else {}
    return {"loss": state.curve[-1]["loss"], "tokens_per_s": state.tokens / state.seconds} | next_try


def _out_of_memory(micro: int, share: int, error: BaseException) -> OutOfMemory:
    less = smaller(micro, share)
    advice = "" if less else "; more workers, a higher zero_stage or activation_checkpointing need less"
    reason = f"{error}".strip().split("\n")[0] or type(error).__name__
    return OutOfMemory(f"out of memory at micro-batch {micro}{advice} ({reason})", less)


def _save(
    engine: Engine, state: TrainState, checkpoints: Checkpoints, warn: Callable[[str], None], *, ending: bool
) -> None:
    """Write a checkpoint; `ending` by raising `Preempted`."""
    failed = checkpoint.save(engine, state, checkpoints)
    if failed:
        warn(f"the checkpoint at step {state.step} could not be written: {failed}")
    if ending:
        kept = "the one before it is kept" if failed else "its checkpoint is kept"
        raise Preempted(f"asked to end (SIGTERM) after step {state.step}; {kept}")


class _Due:
    """When to write a checkpoint: rank 0's clock, or SIGTERM to any worker; never after the last step."""

    def __init__(self, execution: Execution, steps: int, asked_to_end: Callable[[], bool]) -> None:
        self.execution, self.steps, self.asked_to_end = execution, steps, asked_to_end
        self.written = time.monotonic()

    def at(self, step: int, engine: Engine) -> tuple[bool, bool]:
        """Whether to write one now, and whether to end then; all workers agree."""
        if step == self.steps:
            return False, False
        mine = {"due": engine.ranks.rank == 0 and self._due(step), "ending": self.asked_to_end()}
        agreed = engine.summed(mine) if engine.ranks.world > 1 else mine
        ending = bool(agreed["ending"])
        now = ending or bool(agreed["due"])
        if now:
            self.written = time.monotonic()
        return now, ending

    def _due(self, step: int) -> bool:
        every_steps = self.execution.checkpoint_every_steps
        if every_steps:
            return step % every_steps == 0
        return time.monotonic() - self.written >= self.execution.checkpoint_every_s
