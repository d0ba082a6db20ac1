"""Runs one job: the same code in this process, in a Ray task, and in every member of a gang."""

from __future__ import annotations

import os
import random
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from signal import SIGTERM
from typing import Any

from harness.executor import Job, Outcome
from harness.provenance import environment
from harness.recorder import Recorder
from harness.stage import Context, OutOfMemory, Preempted, Ranks, StageFailure, is_out_of_memory, silent, unrecorded
from methods.interface import MethodError
from results.artifacts import Artifacts, Attempt, Manifest
from results.checkpoints import StoredCheckpoints
from results.errors import StoreError
from results.lease import Lease
from results.store import Store, sha256
from tasks.interface import DataError

LOG_TAIL_LINES = 30


def execute(job: Job, ranks: Ranks = Ranks()) -> Outcome:  # noqa: B008
    """Run a job and publish its artifact; a stage's failure is an outcome, not an exception.

    Does nothing when the artifact is there already; waits while a live worker elsewhere holds the key's lease. In a
    gang rank 0 takes the lease, and the others start when it has.
    """
    artifacts = Artifacts(Store(job.store))
    lease = Lease(artifacts.store, artifacts.home(job.stage, job.key), job.attempt)
    while not artifacts.manifest(job.stage, job.key):
        if ranks.rank > 0 and lease.held_by(job.attempt):
            return _attempt(job, ranks, artifacts)
        if ranks.rank == 0 and lease.try_acquire():
            with lease:
                return _attempt(job, ranks, artifacts)
        time.sleep(0.2)
    return Outcome(key=job.key, status="done")


def _attempt(job: Job, ranks: Ranks, artifacts: Artifacts) -> Outcome:
    ledger = Ledger(job, artifacts) if ranks.rank == 0 else None
    started = time.monotonic()
    try:
        prepare_process(job.execution.cpus, job.params.get("seed", 0))
        if job.execution.alone:
            forget_loaded()
        output = artifacts.scratch(job.stage, job.key, job.attempt)
        result = import_module(job.target.partition(":")[0]).run(_context(job, ranks, artifacts, output, ledger))
        wall_s = time.monotonic() - started
        if ledger:
            artifacts.publish(_manifest(job, output, result, wall_s), output)
            ledger.end("done")
        return Outcome(key=job.key, status="done", wall_s=wall_s)
    except Exception as error:
        failure_class, reason = classify(error)
        if failure_class == "out_of_memory":
            forget_loaded()
        retry = {"micro_batch": error.smaller} if isinstance(error, OutOfMemory) and error.smaller else {}
        if ledger:
            artifacts.discard(job.stage, job.key, job.attempt)
            ledger.line.retry = retry
            ledger.end("failed", failure_class, reason, _tail(error))
        if isinstance(error, Preempted):
            raise SystemExit(128 + SIGTERM) from error
        wall_s = time.monotonic() - started
        return Outcome(
            key=job.key, status="failed", failure_class=failure_class, reason=reason, retry=retry, wall_s=wall_s
        )


def _context(job: Job, ranks: Ranks, artifacts: Artifacts, output: Path, ledger: Ledger | None) -> Context:
    warn = ledger.warn if ledger else lambda _: None
    return Context(
        params=job.params,
        inputs={role: artifacts.directory(stage, key) for role, (stage, key) in job.parents.items()},
        output=output,
        execution=job.execution,
        ranks=ranks,
        mirror=Path(job.mirror) if job.mirror else None,
        checkpoints=StoredCheckpoints(
            artifacts, job.stage, job.key, job.attempt, kept=job.execution.kept_checkpoints, warn=warn
        ),
        progress=ledger.progress if ledger else silent,
        telemetry=ledger.recorder if ledger else unrecorded,
        warn=warn,
    )


def _manifest(job: Job, output: Path, result: Mapping[str, Any], wall_s: float) -> Manifest:
    files = {
        path.relative_to(output).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(output.rglob("*"))
        if path.is_file()
    }
    execution = asdict(job.execution) | {"wall_s": wall_s, "worker_s": wall_s * job.execution.workers}
    execution["micro_batch"] = result.get("micro_batch", job.execution.micro_batch)
    return Manifest(
        stage=job.stage,
        key=job.key,
        attempt=job.attempt,
        result=result,
        files=files,
        parts=job.parts,
        execution=execution,
        environment=environment(),
    )


class Ledger:
    """Writes the ledger's line on this attempt: at the start, at most once a second while it runs, at the end."""

    def __init__(self, job: Job, artifacts: Artifacts) -> None:
        self.artifacts = artifacts
        self.line = Attempt(id=job.attempt, stage=job.stage, key=job.key, workers=job.execution.workers)
        self.line.where = {"host": environment()["host"], "pid": os.getpid()}
        self.recorder = Recorder(job, artifacts.store)
        self.line.warnings = self.recorder.warnings
        self.every_s = 1.0 if artifacts.store.local else 15.0
        self.started = self.written = time.monotonic()
        artifacts.note(self.line)

    def progress(self, *, done: int, total: int, **numbers: float) -> None:
        """Note how far the stage is."""
        now = time.monotonic()
        if now - self.written < self.every_s:
            return
        self.written = now
        self.line.elapsed_s = now - self.started
        self.line.progress = {"done": done, "total": total} | numbers | self.recorder.numbers
        self.artifacts.note(self.line)

    def warn(self, what: str) -> None:
        """Note what went wrong beside the stage, once."""
        if what not in self.line.warnings:
            self.line.warnings.append(what)
            self.artifacts.note(self.line)

    def end(self, status: str, failure_class: str = "", reason: str = "", log_tail: str = "") -> None:
        """Note how the attempt ended, once its telemetry is out."""
        self.recorder.close(failed=status == "failed")
        self.line.status, self.line.failure_class = status, failure_class
        self.line.reason, self.line.log_tail = reason, log_tail
        self.line.elapsed_s = time.monotonic() - self.started
        self.artifacts.note(self.line)


def classify(error: Exception) -> tuple[str, str]:
    """Failure class and one-line reason of what a stage raised."""
    reason = f"{error}".strip().split("\n")[0] or type(error).__name__
    if isinstance(error, StageFailure):
        return error.failure_class, reason
    if isinstance(error, DataError):
        return "data", reason
    if isinstance(error, MethodError):
        return "method", reason
    if is_out_of_memory(error):
        return "out_of_memory", reason
    if isinstance(error, OSError | StoreError):
        return "infrastructure", f"{type(error).__name__}: {reason}"
    return "method", f"{type(error).__name__}: {reason}"


def _tail(error: Exception) -> str:
    return "\n".join("".join(traceback.format_exception(error)).splitlines()[-LOG_TAIL_LINES:])


def forget_loaded() -> None:
    """Free what fine-tuning stages keep in a reused process: it counts as the process's memory."""
    import_module("harness.stages.loaded").forget()


def prepare_process(cpus: float, seed: int) -> None:
    """Give a (possibly reused) process the stage's threads and fresh random generators."""
    import logging

    import numpy as np
    import torch
    import transformers

    torch.set_num_threads(max(1, int(cpus)))
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
