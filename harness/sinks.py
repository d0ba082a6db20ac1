"""Where telemetry goes: the store's events always; TensorBoard, MLflow and Weights & Biases where a sweep asks.

A sink opens with its first batch, in a thread of its own, and may raise: whoever feeds it drops it then. Credentials
are the services' own affair (their environment variables and files); none is read or written here.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from harness.errors import SpecError
from harness.executor import Job
from results.events import Line, write_batch
from results.store import Store

PACKAGES = {"tensorboard": "tensorboard", "mlflow": "mlflow", "wandb": "wandb"}
"""Key of `telemetry` in a sweep -> the package that it needs."""
MLFLOW_BATCH = 1000
"""Metrics in one request, at most: MLflow's limit."""
AXES = ("step", "unix_time_s")


class Sink(Protocol):
    """Takes lines in batches, in the order of the steps."""

    def write(self, lines: Sequence[Line]) -> None: ...

    def close(self, *, failed: bool) -> None: ...


def sinks_of(job: Job, store: Store) -> dict[str, Callable[[], Sink]]:
    """Name -> what opens it, for every sink of a job."""
    found: dict[str, Callable[[], Sink]] = {"events": lambda: Events(job, store)}
    if job.telemetry.get("tensorboard"):
        found["tensorboard"] = lambda: TensorBoard(job, store)
    if uri := job.telemetry.get("mlflow"):
        found["mlflow"] = lambda: Mlflow(job, uri)
    if project := job.telemetry.get("wandb"):
        found["wandb"] = lambda: Wandb(job, project)
    return found


def check_packages(telemetry: Mapping[str, Any]) -> None:
    """Raise SpecError when a sink that is asked for has no package here."""
    for key, package in PACKAGES.items():
        if telemetry.get(key) and find_spec(package) is None:
            raise SpecError(f"telemetry.{key}: the package {package} is not installed; run: pip install {package}")


def numbers(line: Line) -> dict[str, float]:
    """A line without what is not a measurement but an axis."""
    return {name: value for name, value in line.items() if name not in AXES}


def _facts(job: Job) -> dict[str, str]:
    return {"stage": job.stage, "key": job.key, "attempt": job.attempt, "sweep": job.sweep}


class Events:
    """The store's events."""

    def __init__(self, job: Job, store: Store) -> None:
        self.job, self.store, self.batches = job, store, 0

    def write(self, lines: Sequence[Line]) -> None:
        write_batch(self.store, self.job.stage, self.job.key, self.job.attempt, self.batches, lines)
        self.batches += 1

    def close(self, *, failed: bool) -> None:
        pass


class TensorBoard:
    """Event files in `tensorboard/<sweep>/<label>-<key>/` of the store: one run per stage, whatever its attempts.

    A later attempt purges the steps that it repeats. In a remote store the file is uploaded anew after each batch.
    """

    def __init__(self, job: Job, store: Store) -> None:
        label = re.sub(r"[^A-Za-z0-9._=-]+", "_", job.label or job.stage)
        self.store, self.home = store, f"tensorboard/{job.sweep}/{label}-{job.key[:8]}"
        self.directory = store.local / self.home if store.local else Path(tempfile.mkdtemp(prefix="weighin-telemetry-"))
        self.writer: Any = None

    def write(self, lines: Sequence[Line]) -> None:
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.directory), purge_step=int(lines[0]["step"]))
        for line in lines:
            for name, value in numbers(line).items():
                self.writer.add_scalar(name, value, int(line["step"]), walltime=line["unix_time_s"])
        self.writer.flush()
        self._upload()

    def close(self, *, failed: bool) -> None:
        if self.writer is not None:
            self.writer.close()
            self._upload()

    def _upload(self) -> None:
        for file in () if self.store.local else self.directory.iterdir():
            self.store.write(f"{self.home}/{file.name}", file.read_bytes())


class Mlflow:
    """A run per attempt, in the experiment that is called as the sweep."""

    def __init__(self, job: Job, uri: str) -> None:
        from mlflow import MlflowClient

        self.client = MlflowClient(tracking_uri=uri)
        run = self.client.create_run(self._experiment(job.sweep), run_name=job.label, tags=_facts(job))
        self.run_id = run.info.run_id

    def _experiment(self, name: str) -> str:
        """The experiment's id; another worker may make it at the same time."""
        found = self.client.get_experiment_by_name(name)
        if found is None:
            with suppress(Exception):
                return str(self.client.create_experiment(name))
            found = self.client.get_experiment_by_name(name)
        return str(found.experiment_id)

    def write(self, lines: Sequence[Line]) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(key=name, value=value, timestamp=int(1000 * line["unix_time_s"]), step=int(line["step"]))
            for line in lines
            for name, value in numbers(line).items()
        ]
        for first in range(0, len(metrics), MLFLOW_BATCH):
            self.client.log_batch(self.run_id, metrics=metrics[first : first + MLFLOW_BATCH])

    def close(self, *, failed: bool) -> None:
        self.client.set_terminated(self.run_id, status="FAILED" if failed else "FINISHED")


class Wandb:
    """A run per attempt in a project (`PROJECT` or `ENTITY/PROJECT`), in the group that is called as the sweep."""

    def __init__(self, job: Job, project: str) -> None:
        import wandb

        entity, _, name = project.rpartition("/")
        self.run = wandb.init(
            entity=entity or None,
            project=name,
            group=job.sweep,
            job_type=job.stage,
            name=job.label,
            config=_facts(job),
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True),
        )

    def write(self, lines: Sequence[Line]) -> None:
        for line in lines:
            self.run.log(numbers(line), step=int(line["step"]))

    def close(self, *, failed: bool) -> None:
        self.run.finish(exit_code=int(failed))
