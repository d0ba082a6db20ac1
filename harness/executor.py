"""The seam between what is to run (a job) and what runs it (an executor); the ledger in the store is the truth."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Literal, Protocol

from harness.errors import SpecError, nearest
from harness.stage import Execution

BUILT_IN = {"inline": "harness.inline:InlineExecutor", "ray": "cluster.ray_executor:RayExecutor"}


@dataclass(frozen=True, kw_only=True)
class Job:
    """One stage to run, as plain data: a worker needs nothing else than the code and access to the store."""

    stage: str
    key: str
    attempt: str
    """Names the directory and the ledger line of this try; every member of a gang has the same."""
    target: str
    """`module:function` of the stage."""
    params: Mapping[str, Any]
    parents: Mapping[str, tuple[str, str]]
    """Role -> (stage, key) of the artifact that plays it."""
    parts: Mapping[str, Any] = field(default_factory=dict)
    """What the key was made of."""
    execution: Execution = field(default_factory=Execution)
    store: str
    mirror: str | None = None
    label: str = ""
    """For people: `distill svd params=0.66 #0`."""
    sweep: str = ""
    telemetry: Mapping[str, Any] = field(default_factory=dict)
    """The sweep's choice of sinks (`harness.spec.TelemetryChoice`)."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        data = json.loads(text)
        data["execution"] = Execution(**data["execution"])
        data["parents"] = {role: (stage, key) for role, (stage, key) in data["parents"].items()}
        return cls(**data)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an attempt at a job ended."""

    key: str
    status: Literal["done", "failed"]
    failure_class: str = ""
    """`infrastructure` (worth another attempt), `out_of_memory`, `diverged`, `budget`, `method`, `data`."""
    reason: str = ""
    retry: Mapping[str, int] = field(default_factory=dict)
    """Fields of the execution that another attempt should have instead, such as a smaller `micro_batch`."""
    wall_s: float = 0.0


class Executor(Protocol):
    """Runs jobs whose parents are all published. Called from one thread."""

    def start(self, job: Job) -> None:
        """Begin or queue a job; never blocks for long."""

    def finished(self, timeout_s: float) -> list[Outcome]:
        """Jobs that ended since the last call; waits up to `timeout_s` for the first."""

    def close(self) -> None:
        """Stop what still runs and release everything."""


def _target(name: str) -> str:
    known = BUILT_IN | {point.name: point.value for point in entry_points(group="weighin.executors")}
    if name not in known:
        raise SpecError(f"--on {name}: no such executor{nearest(name, known)}")
    return known[name]


def check_executor(name: str) -> None:
    """Raise SpecError when no executor is called `name`."""
    _target(name)


def executor(name: str, **options: Any) -> Executor:
    """Build the executor called `name`; its package is imported only now."""
    module, _, attribute = _target(name).partition(":")
    built: Executor = getattr(import_module(module), attribute)(**options)
    return built
