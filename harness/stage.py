"""What a stage function sees: its inputs, its output directory, its parameters, and where it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


class StageFailure(Exception):
    """A stage ended without a result for a reason that a retry would not change; the reason is for the reader."""

    failure_class = "method"


class Diverged(StageFailure):
    """The loss became NaN or infinite."""

    failure_class = "diverged"

    def __init__(self, step: int, what: str = "loss") -> None:
        super().__init__(f"{what} is not finite at step {step}")
        self.step = step


class OutOfMemory(StageFailure):
    """Memory ran out; `smaller` is the micro-batch to try next, None when there is none."""

    failure_class = "out_of_memory"

    def __init__(self, reason: str, smaller: int | None = None) -> None:
        super().__init__(reason)
        self.smaller = smaller


def is_out_of_memory(error: BaseException) -> bool:
    """True for the errors by which Python, torch and CUDA say that memory ran out."""
    said = f"{error}".lower()
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or "out of memory" in said or "can't allocate memory" in said


class Preempted(StageFailure):
    """The process was asked to end (SIGTERM); its work is in a checkpoint, and another attempt goes on from there."""

    failure_class = "infrastructure"


class BudgetMissed(StageFailure):
    """The student built is not of the size that was asked for."""

    failure_class = "budget"


@dataclass(frozen=True, kw_only=True)
class Execution:
    """Where and how a stage runs: recorded, never part of its identity."""

    cpus: float = 1
    """CPUs per worker; also the number of torch threads of a worker."""
    gpus: float = 0
    """GPUs per worker."""
    memory_bytes: int | None = None
    workers: int = 1
    micro_batch: int | None = None
    """Sequences or examples per forward pass of one worker; None chooses one."""
    zero_stage: int = 0
    offload: bool = False
    """Keep optimiser state in host memory (ZeRO 1-3 on GPU)."""
    activation_checkpointing: bool = False
    shard_teacher: bool = False
    """Partition the frozen teacher over the workers too; with ZeRO 3."""
    checkpoint_every_s: float = 60.0
    checkpoint_every_steps: int | None = None
    """Instead of `checkpoint_every_s`."""
    kept_checkpoints: int = 2
    collective_timeout_s: float = 600.0
    """How long a worker waits for another one before it gives up."""
    alone: bool = False
    """Runs while nothing else does: for stages that measure time."""
    deepspeed: Mapping[str, Any] = field(default_factory=dict)
    """Raw DeepSpeed keys that say where and how, not what (`harness.execution_keys`)."""


@dataclass(frozen=True)
class Ranks:
    """This process's place in the gang that runs the stage."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0


class Checkpoints(Protocol):
    """Where a stage leaves its unfinished work; shared by all attempts at the same key."""

    def latest(self) -> tuple[int, Path] | None:
        """Step and directory of the newest complete checkpoint."""

    def writing(self, step: int) -> AbstractContextManager[Path]:
        """A directory to write one in; it becomes the newest when the block ends without an error (rank 0 only)."""


class Progress(Protocol):
    """Live numbers of a running stage."""

    def __call__(self, *, done: int, total: int, **numbers: float) -> None: ...


class Telemetry(Protocol):
    """Takes the numbers of every optimiser step of a training stage."""

    def __call__(self, point: Mapping[str, float], *, tokens: int, seconds: float, flops_per_token: float) -> None:
        """`point` is the step's line in the loss curve; `tokens` and `seconds` are those of this step alone."""


def unrecorded(point: Mapping[str, float], *, tokens: int, seconds: float, flops_per_token: float) -> None:
    """Telemetry that goes nowhere."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """Everything a stage function gets; it returns a small JSON-able result and writes files under `output`."""

    params: Mapping[str, Any]
    inputs: Mapping[str, Path]
    """Role -> directory of the parent's artifact."""
    output: Path
    execution: Execution = field(default_factory=Execution)
    ranks: Ranks = field(default_factory=Ranks)
    mirror: Path | None = None
    checkpoints: Checkpoints
    progress: Progress
    telemetry: Telemetry = unrecorded
    warn: Callable[[str], None] = lambda _: None
    """Takes a line on what went wrong beside the stage; it ends up in the ledger."""


def silent(*, done: int, total: int, **numbers: float) -> None:
    """Progress that nobody watches."""


class NoCheckpoints:
    """For tests and short stages: nothing to resume from, nothing kept."""

    def latest(self) -> None:
        return None

    def writing(self, step: int) -> AbstractContextManager[Path]:
        import tempfile
        from contextlib import contextmanager

        @contextmanager
        def scratch() -> Iterator[Path]:
            with tempfile.TemporaryDirectory() as name:
                yield Path(name)

        return scratch()
