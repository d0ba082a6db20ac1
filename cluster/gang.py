"""A job that runs on several workers at once: a Ray Train group with a torch process group."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from typing import Any

from cluster.preemption import set_up
from cluster.resources import per_worker
from cluster.task import outcome_from_json, outcome_to_json, run_job, worker_environment
from harness.executor import Job, Outcome
from harness.stage import Ranks

_LOST_PEER = re.compile(r"closed by peer|connection reset|broken pipe|connection refused|gloo|nccl", re.IGNORECASE)


class MemberFailed(Exception):
    """A member's outcome (JSON) is a failure; raised so that Ray Train stops the other members."""


def run_gang(run: str, job: str) -> str:
    """Run a job on `execution.workers` workers and return the outcome (JSON) of the group.

    Called in a Ray task of its own. Gloo on CPU, NCCL on GPU; no restart inside the group: whether a lost worker is
    worth another attempt is the driver's decision.
    """
    from ray.train import RunConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    parsed = Job.from_json(job)
    with tempfile.TemporaryDirectory(prefix="weighin-gang-") as storage:
        trainer = TorchTrainer(
            member,
            train_loop_config={"run": run, "job": job},
            run_config=RunConfig(
                storage_path=storage,
                worker_runtime_env={"env_vars": worker_environment(parsed.execution) | set_up()},
            ),
            **_configs(parsed),
        )
        try:
            return str(trainer.fit().return_value)
        except TrainingFailedError as error:
            return outcome_to_json(_outcome(parsed.key, error))


def _configs(job: Job) -> dict[str, Any]:
    from ray.train import ScalingConfig
    from ray.train.torch import TorchConfig

    execution = job.execution
    return {
        "torch_config": TorchConfig(
            backend="nccl" if execution.gpus else "gloo", timeout_s=max(1, int(execution.collective_timeout_s))
        ),
        "scaling_config": ScalingConfig(
            num_workers=execution.workers,
            use_gpu=execution.gpus > 0,
            resources_per_worker=per_worker(execution),
        ),
    }


def member(config: Mapping[str, str]) -> str:
    """One worker of the group: run the job as its rank; raise `MemberFailed` when that fails."""
    from ray import train

    context = train.get_context()
    ranks = Ranks(context.get_world_rank(), context.get_world_size(), context.get_local_rank())
    try:
        outcome = run_job(config["run"], config["job"], ranks)
    except SystemExit as leaving:
        key = Job.from_json(config["job"]).key
        raise MemberFailed(outcome_to_json(_lost(key, f"a worker was asked to end: {leaving.__cause__}"))) from leaving
    if outcome_from_json(outcome).status == "failed":
        raise MemberFailed(outcome)
    return outcome


def _outcome(key: str, error: Exception) -> Outcome:
    """The failure that explains the others: a lost worker first, then the failed stage of the lowest rank.

    A member that loses its peer fails too, with an error of the network layer; that is the peer's loss, not its own.
    """
    failures: Mapping[int, Exception] = getattr(error, "worker_failures", {})
    stage_failures = []
    for rank, failure in sorted(failures.items()):
        cause = getattr(failure, "_base_exc", failure)
        if not isinstance(cause, MemberFailed):
            return _lost(key, f"worker {rank} of the gang was lost: {_first_line(cause)}")
        stage_failures.append(outcome_from_json(cause.args[0]))
    if not stage_failures:
        return _lost(key, f"the gang could not run: {_first_line(getattr(error, 'controller_failure', error))}")
    own = [failed for failed in stage_failures if not _LOST_PEER.search(failed.reason)]
    return own[0] if own else _lost(key, f"a worker of the gang was lost: {stage_failures[0].reason}")


def _lost(key: str, reason: str) -> Outcome:
    return Outcome(key=key, status="failed", failure_class="infrastructure", reason=reason)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
