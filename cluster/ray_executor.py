"""The executor that runs stages on Ray: a local cluster, or one that it joins."""

from __future__ import annotations

import os
import socket
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster.gang import run_gang
from cluster.resources import shortfall
from cluster.task import outcome_from_json, run_job, worker_environment
from harness.errors import SpecError
from harness.executor import Job, Outcome

PATIENCE_S = 60.0
"""How long a job may wait in a joined cluster for a node that is large enough."""

_EXCLUDED = ["tests", "build", "dist", ".venv", ".weighin", ".git", ".mypy_cache", ".ruff_cache", "**/__pycache__"]


class RayExecutor:
    """Runs each job as a Ray task with its declared resources, and a job of several workers as a gang.

    Without an address it starts a cluster of its own that ends with it. Starting takes some seconds and happens
    beside what the caller does next; jobs started meanwhile are queued. CPU workers are reused from stage to stage, so
    that imports are paid once; a GPU worker serves one stage, because CUDA_VISIBLE_DEVICES is read once per process.
    A lost worker or node is an `infrastructure` outcome: no retries here.
    """

    def __init__(
        self, address: str | None = None, cpus: int | None = None, *, run: str = "harness.worker:execute"
    ) -> None:
        """`cpus` limits a local cluster; `run` ("module:function") is what a worker calls with a job and its ranks."""
        self.local = address is None
        self.run = run
        self.queued: list[Job] = []
        self.refused: list[Outcome] = []
        self.running: dict[Any, tuple[Job, float]] = {}
        # The thread outlives the start on purpose: Linux ends Ray's processes when the thread that made them ends.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ray-start")
        self._ready: Future[None] = self._thread.submit(_connect, address, cpus)

    def start(self, job: Job) -> None:
        """Submit a job, or queue it while Ray is starting."""
        self.queued.append(job)
        if self._ready.done():
            self._submit_queued()

    def finished(self, timeout_s: float) -> list[Outcome]:
        """Outcomes since the last call; waits up to `timeout_s` for the first, and for Ray to be up."""
        import ray

        self._ready.result()
        self._submit_queued()
        self._give_up()
        ended, self.refused = self.refused, []
        if not self.running:
            return ended
        ray.wait(list(self.running), timeout=0 if ended else timeout_s)
        done, _ = ray.wait(list(self.running), num_returns=len(self.running), timeout=0)
        return ended + [_outcome(self.running.pop(reference)[0], reference) for reference in done]

    def close(self) -> None:
        """End what still runs, and the cluster if it is ours."""
        import ray

        if self._ready.exception() is None:
            ray.shutdown()
        self.queued.clear()
        self.running.clear()
        self._thread.shutdown()

    def _submit_queued(self) -> None:
        """Hand queued jobs to Ray; what a local cluster can never run fails at once."""
        self._ready.result()
        for job in self.queued:
            reason = shortfall(job.execution, _nodes()) if self.local else None
            if reason:
                self.refused.append(_infrastructure(job.key, reason))
            else:
                self.running[self._submit(job)] = (job, time.monotonic())
        self.queued = []

    def _submit(self, job: Job) -> Any:
        import ray

        execution = job.execution
        if execution.workers > 1:
            return ray.remote(run_gang).options(num_cpus=0, max_retries=0).remote(self.run, job.to_json())
        task = ray.remote(run_job).options(
            name=job.stage,
            num_cpus=execution.cpus,
            num_gpus=execution.gpus or None,
            memory=execution.memory_bytes,
            max_retries=0,
            runtime_env={"env_vars": worker_environment(execution)},
        )
        return task.remote(self.run, job.to_json())

    def _give_up(self) -> None:
        """Cancel jobs that no node of a joined cluster has been large enough for, for a while."""
        import ray

        before = time.monotonic() - PATIENCE_S
        late = {} if self.local else {ref: job for ref, (job, since) in self.running.items() if since < before}
        for reference, job in late.items():
            reason = shortfall(job.execution, _nodes())
            if reason:
                ray.cancel(reference, force=True)
                del self.running[reference]
                self.refused.append(_infrastructure(job.key, reason))


def _connect(address: str | None, cpus: int | None) -> None:
    """Start a local Ray ("local" ignores a stale cluster file of an earlier one), or join the one at `address`."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        ray.init("local", num_cpus=cpus, include_dashboard=False, object_store_memory=128 * 2**20, **quiet)
        return
    try:
        _knock(address)
        ray.init(address, runtime_env=_shipped_code(), **quiet)
    except (OSError, ValueError) as error:
        raise SpecError(f"--address {address}: cannot join a Ray cluster there: {_reason(error)}") from error


def _knock(address: str) -> None:
    """Raise `OSError` where nothing listens at a HOST:PORT; Ray itself takes minutes to say so."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=10).close()


def _shipped_code() -> dict[str, Any]:
    """Our checkout as the workers' working directory; nothing where a submitted job brought it, or from a wheel."""
    root = Path(__file__).parent.parent
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ or not (root / "pyproject.toml").is_file():
        return {}
    return {"working_dir": str(root), "excludes": _EXCLUDED}


def _nodes() -> list[dict[str, float]]:
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _outcome(job: Job, reference: Any) -> Outcome:
    import ray

    try:
        return outcome_from_json(ray.get(reference))
    except ray.exceptions.OutOfMemoryError as error:
        return replace(_infrastructure(job.key, _reason(error)), failure_class="out_of_memory")
    except ray.exceptions.RayError as error:
        return _infrastructure(job.key, _reason(error))


def _infrastructure(key: str, reason: str) -> Outcome:
    return Outcome(key=key, status="failed", failure_class="infrastructure", reason=reason)


def _reason(error: BaseException) -> str:
    """One line: what Ray calls the loss, or the first line of the error behind it."""
    cause = getattr(error, "cause", None) or error
    known = {
        "WorkerCrashedError": "the worker process died",
        "LocalRayletDiedError": "the node's Ray process died",
        "NodeDiedError": "the node died",
        "OutOfMemoryError": "the node ran out of memory and Ray ended the worker",
    }
    first = next((line.strip() for line in str(cause).splitlines() if line.strip()), "no message")
    return known.get(type(cause).__name__, f"{type(cause).__name__}: {first}")
