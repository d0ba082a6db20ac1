"""The Ray executor against a real local Ray."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.ray_executor import RayExecutor
from harness.executor import Job, Outcome
from harness.stage import Execution

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(180),
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning:ray", "ignore::ResourceWarning", "ignore::FutureWarning:ray"
    ),
]


def job(key: str, do: str, *, cpus: float = 1, gpus: float = 0, workers: int = 1, **params: Any) -> Job:
    return Job(
        stage="probe",
        key=key,
        attempt="a1",
        target="nowhere",
        params={"do": do} | params,
        parents={},
        execution=Execution(cpus=cpus, gpus=gpus, workers=workers),
        store="unused",
    )


def outcomes(executor: RayExecutor, *jobs: Job, within_s: float = 90) -> dict[str, Outcome]:
    """Run jobs to their ends."""
    found: dict[str, Outcome] = {}
    until = time.monotonic() + within_s
    for each in jobs:
        executor.start(each)
    while len(found) < len(jobs) and time.monotonic() < until:
        found |= {outcome.key: outcome for outcome in executor.finished(1.0)}
    return found


@pytest.fixture(scope="module")
def executor() -> Iterator[RayExecutor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        patch.setenv("RAY_ADDRESS", "10.255.255.1:6379")
        built = RayExecutor(cpus=2, run="cluster_probe:run")
        yield built
        built.close()


def test_cpu_workers_are_reused_and_have_their_environment(executor):
    answers = [outcomes(executor, job(f"k{i}", "facts"))[f"k{i}"].reason.split() for i in range(4)]
    assert len({pid for pid, *_ in answers}) == 1
    assert answers[0][1:] == ["1", "1", "false"]
    assert outcomes(executor, job("two", "facts", cpus=2))["two"].reason.split()[1] == "2"


def test_declared_cpus_decide_what_runs_together(executor):
    """Four jobs of one CPU on two CPUs take two rounds; with half a CPU each they would take one."""
    outcomes(executor, job("w1", "sleep", seconds=0.2), job("w2", "sleep", seconds=0.2))
    started = time.monotonic()
    ended = outcomes(executor, *(job(f"s{i}", "sleep", seconds=1) for i in range(4)))
    assert {outcome.status for outcome in ended.values()} == {"done"}
    assert time.monotonic() - started > 1.9


def test_failures_are_told_apart(executor):
    ended = outcomes(executor, job("d", "die"), job("r", "raise"), job("v", "diverge"))
    assert (ended["d"].failure_class, ended["d"].reason) == ("infrastructure", "the worker process died")
    assert (ended["r"].failure_class, ended["r"].reason) == ("infrastructure", "OSError: the store is gone")
    assert (ended["v"].failure_class, ended["v"].reason) == ("diverged", "not finite at step 3")


def test_a_job_that_no_node_can_run_fails_with_the_numbers(executor):
    wide = job("workers", "facts", workers=3)
    ended = outcomes(executor, job("gpus", "facts", gpus=8), job("cpus", "facts", cpus=64), wide, within_s=5)
    assert ended["gpus"].reason == "asked 8 GPUs, the largest node has 0"
    assert ended["cpus"].reason == "asked 64 CPUs, the largest node has 2"
    assert ended["workers"].reason == "asked 3 workers, the cluster has room for 2"


@pytest.mark.distributed
def test_a_gang_reduces_over_its_ranks(executor):
    outcome = outcomes(executor, job("g", "sum", workers=2))["g"]
    assert outcome.reason == "rank 0 of 2, gloo, sum 3"


@pytest.mark.distributed
def test_a_gang_fails_as_its_members_do(executor):
    assert outcomes(executor, job("v", "diverge", workers=2))["v"].failure_class == "diverged"
    lost = outcomes(executor, job("l", "one dies", workers=2))["l"]
    assert lost.failure_class == "infrastructure", lost
    assert "gang" in lost.reason
