"""What runs inside a Ray worker: one job, plain JSON in and out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module

from harness.executor import Job, Outcome
from harness.stage import Execution, Ranks

Run = Callable[[Job, Ranks], Outcome]


def run_job(run: str, job: str, ranks: Ranks = Ranks()) -> str:  # noqa: B008
    """Call `run` ("module:function") on a job; job and outcome are JSON."""
    module, _, function = run.partition(":")
    call: Run = getattr(import_module(module), function)
    return outcome_to_json(call(Job.from_json(job), ranks))


def outcome_to_json(outcome: Outcome) -> str:
    return json.dumps(asdict(outcome))


def outcome_from_json(text: str) -> Outcome:
    return Outcome(**json.loads(text))


def worker_environment(execution: Execution) -> dict[str, str]:
    """Variables a worker process must start with: they are read once, when libraries load.

    THP_MEM_ALLOC_ENABLE lets torch use transparent huge pages: over a large vocabulary more than twice as fast.
    """
    return {
        "OMP_NUM_THREADS": str(max(1, int(execution.cpus))),
        "THP_MEM_ALLOC_ENABLE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
