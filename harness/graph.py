"""The stage graph: what is computed, named by content. A key is a digest of everything that changes the result."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import version
from typing import Any

from harness.digest import digest_parts
from harness.executor import Job
from harness.identity import digest
from harness.stage import Execution

LIBRARIES: Mapping[str, tuple[str, ...]] = {
    "corpus": ("pyarrow",),
    "tokenizer": ("tokenizers", "transformers"),
    "tokens": ("tokenizers", "transformers"),
    "teacher": ("torch", "transformers", "deepspeed"),
    "calibrate": ("torch", "transformers"),
    "compress": ("torch", "transformers", "scipy"),
    "tune": ("torch", "transformers", "deepspeed"),
    "distill": ("torch", "transformers", "deepspeed"),
    "finetune": ("torch", "transformers", "deepspeed", "tokenizers", "scikit-learn"),
    "evaluate": ("torch", "transformers", "tokenizers", "lm_eval"),
    "profile": ("torch", "transformers"),
}
"""Libraries whose versions are part of a stage's identity."""

_version = cache(version)


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """A node: a function, its parameters, its parents, its data and its code; where it runs stands apart."""

    name: str
    module: str
    """Module of the stage function `run(context) -> result`."""
    label: str
    """For people: `distill kronecker params=0.66 #0`."""
    params: Mapping[str, Any] = field(default_factory=dict)
    places: Mapping[str, Any] = field(default_factory=dict)
    """Where things lie, such as a directory: goes to the worker beside `params` and is never part of the key."""
    parents: Mapping[str, Stage] = field(default_factory=dict)
    data: str = ""
    """Fingerprint or revision of the data that the stage itself reads."""
    code: tuple[str, ...] = ()
    """Further modules whose code the result depends on: a method's, a task's."""
    libraries: tuple[str, ...] = ()
    """Whose versions matter, besides those of `LIBRARIES`."""
    execution: Execution = field(default_factory=Execution)
    flops_per_token: float | None = None
    """Of a training whose budget is in FLOPs; for its price, not part of the key."""

    @cached_property
    def parts(self) -> Mapping[str, Any]:
        """What the key is a digest of, kept in the manifest so that a miss can be explained."""
        modules: dict[str, str] = {}
        for module in (self.module, *self.code):
            modules |= digest_parts(module)
        return {
            "stage": self.name,
            "params": self.params,
            "parents": {role: parent.key for role, parent in self.parents.items()},
            "data": self.data,
            "code": modules,
            "libraries": {name: _version(name) for name in (*LIBRARIES[self.name], *self.libraries)},
        }

    @cached_property
    def key(self) -> str:
        """The artifact's name."""
        return digest(self.parts)

    def job(
        self,
        store: str,
        mirror: str | None,
        attempt: str,
        *,
        sweep: str = "",
        telemetry: Mapping[str, Any] | None = None,
    ) -> Job:
        """This stage as plain data for a worker."""
        return Job(
            stage=self.name,
            key=self.key,
            attempt=attempt,
            target=f"{self.module}:run",
            params={**self.params, **self.places},
            parents={role: (parent.name, parent.key) for role, parent in self.parents.items()},
            parts=self.parts,
            execution=self.execution,
            store=store,
            mirror=mirror,
            label=self.label,
            sweep=sweep,
            telemetry=telemetry or {},
        )


def ancestors_first(stages: Iterable[Stage]) -> Iterator[Stage]:
    """Every stage that the given ones need, themselves included, once per key, parents before children."""
    seen: set[str] = set()

    def visit(stage: Stage) -> Iterator[Stage]:
        if stage.key in seen:
            return
        seen.add(stage.key)
        for parent in stage.parents.values():
            yield from visit(parent)
        yield stage

    for stage in stages:
        yield from visit(stage)


def why_different(parts: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names of the parts in which two keys of the same stage differ: `params.recipe`, `code.methods.low_rank`."""
    different = []
    for name in ("params", "parents", "code", "libraries"):
        mine, theirs = parts.get(name, {}), other.get(name, {})
        different += [f"{name}.{k}" for k in sorted(mine.keys() | theirs.keys()) if mine.get(k) != theirs.get(k)]
    return different + (["data"] if parts.get("data") != other.get("data") else [])
