"""The executor that runs every stage in this process, one after the other: for debugging."""

from __future__ import annotations

from collections import deque

from harness.executor import Job, Outcome
from harness.worker import execute


class InlineExecutor:
    """No Ray, no parallelism, tracebacks where they happen."""

    def __init__(self, **_: object) -> None:
        self.waiting: deque[Job] = deque()

    def start(self, job: Job) -> None:
        self.waiting.append(job)

    def finished(self, timeout_s: float) -> list[Outcome]:
        if not self.waiting:
            return []
        job = self.waiting.popleft()
        if job.execution.workers > 1:
            reason = f"{job.stage} asks for {job.execution.workers} workers; inline has one"
            return [Outcome(key=job.key, status="failed", failure_class="method", reason=reason)]
        return [execute(job)]

    def close(self) -> None:
        self.waiting.clear()
