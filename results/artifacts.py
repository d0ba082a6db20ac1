"""Artifacts: directories named by a stage's key, complete when their manifest is there, written by fenced attempts."""

from __future__ import annotations

import json
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from results.errors import StoreError
from results.store import Store, sha256


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a finished stage left behind; published once."""

    stage: str
    key: str
    attempt: str
    result: Mapping[str, Any]
    files: Mapping[str, Mapping[str, Any]]
    """Relative path -> {"bytes", "sha256"}."""
    parts: Mapping[str, Any] = field(default_factory=dict)
    """What the key was made of, so that a miss elsewhere can say which part changed."""
    execution: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class Attempt:
    """The ledger's line on one attempt at a key; rewritten while it runs."""

    id: str
    stage: str
    key: str
    status: str = "running"
    """`running`, `done` or `failed`."""
    started_at: float = field(default_factory=time.time)
    elapsed_s: float = 0.0
    workers: int = 1
    progress: dict[str, float] = field(default_factory=dict)
    failure_class: str = ""
    reason: str = ""
    log_tail: str = ""
    where: dict[str, Any] = field(default_factory=dict)
    retry: dict[str, int] = field(default_factory=dict)
    """What another attempt should do otherwise (`micro_batch`), where that may mend it."""
    warnings: list[str] = field(default_factory=list)
    """What went wrong beside the stage, such as a telemetry sink."""


def new_attempt_id() -> str:
    """Sortable by time, unique without coordination."""
    seconds, rest = divmod(time.time_ns(), 10**9)
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(seconds))}.{rest // 1000:06d}-{uuid.uuid4().hex[:8]}"


class Artifacts:
    """Artifacts, attempts and checkpoints of a store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @staticmethod
    def home(stage: str, key: str) -> str:
        return f"artifacts/{stage}/{key}"

    def manifest(self, stage: str, key: str) -> Manifest | None:
        """The manifest of a complete artifact, else None."""
        data = self.store.read_json(f"{self.home(stage, key)}/manifest.json")
        return Manifest(**data) if data else None

    def manifests(self, stage: str) -> Iterator[Manifest]:
        """Every complete artifact of a stage."""
        for key in self.store.names(f"artifacts/{stage}"):
            if found := self.manifest(stage, key):
                yield found

    def directory(self, stage: str, key: str) -> Path:
        """A local directory with a complete artifact's files; downloaded and verified when the store is remote.

        Raises StoreError when the artifact is incomplete or a file is missing or of another size.
        """
        manifest = self.manifest(stage, key)
        if manifest is None:
            raise StoreError(f"store {self.store.url}: artifact {stage}/{key} is not complete")
        name = f"{self.home(stage, key)}/{manifest.attempt}"
        home = self.store.local / name if self.store.local else self._download(name, manifest)
        for file, facts in manifest.files.items():
            path = home / file
            if not path.is_file() or path.stat().st_size != facts["bytes"]:
                raise StoreError(f"store {self.store.url}: {name}/{file} is missing or damaged")
        return home

    def _download(self, name: str, manifest: Manifest) -> Path:
        target = Path(tempfile.gettempdir()) / "weighin-cache" / manifest.key / manifest.attempt
        for file, facts in manifest.files.items():
            path = target / file
            if not path.resolve().is_relative_to(target.resolve()):
                raise StoreError(f"store {self.store.url}: {name}: its manifest names a file outside: {file}")
            if path.is_file() and path.stat().st_size == facts["bytes"]:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
            self.store.fs.get_file(self.store.path(f"{name}/{file}"), str(scratch))
            if sha256(scratch) != facts["sha256"]:
                raise StoreError(f"store {self.store.url}: {name}/{file} does not match its checksum")
            scratch.replace(path)
        return target

    def scratch(self, stage: str, key: str, attempt: str) -> Path:
        """An empty local directory for an attempt's files."""
        if self.store.local:
            path = self.store.local / self.home(stage, key) / attempt
            path.mkdir(parents=True, exist_ok=True)
            return path
        return Path(tempfile.mkdtemp(prefix=f"weighin-{stage}-"))

    def discard(self, stage: str, key: str, attempt: str) -> None:
        """Remove a failed attempt's files; its line in the ledger stays."""
        self.store.remove(f"{self.home(stage, key)}/{attempt}")

    def publish(self, manifest: Manifest, directory: Path) -> bool:
        """Make an attempt's files the artifact; False when another attempt was first (its files win)."""
        home = self.home(manifest.stage, manifest.key)
        if not self.store.local:
            self.store.move_in(directory, f"{home}/{manifest.attempt}")
        data = json.dumps(asdict(manifest), indent=1).encode()
        first = self.store.put_if_absent(f"{home}/manifest.json", data)
        if not first:
            self.store.remove(f"{home}/{manifest.attempt}")
        self.store.remove(f"{home}/checkpoints")
        return first

    def note(self, attempt: Attempt) -> None:
        """Write or rewrite the ledger's line on an attempt."""
        self.store.write(
            f"{self.home(attempt.stage, attempt.key)}/{attempt.id}.json", json.dumps(asdict(attempt)).encode()
        )

    def attempts(self, stage: str, key: str) -> list[Attempt]:
        """Attempts at a key, oldest first."""
        home = self.home(stage, key)
        names = [n for n in self.store.names(home) if n[:1].isdigit() and n.endswith(".json")]
        return [Attempt(**data) for name in names if (data := self.store.read_json(f"{home}/{name}"))]

    def attempt(self, stage: str, key: str, attempt: str) -> Attempt | None:
        """One attempt's line in the ledger."""
        data = self.store.read_json(f"{self.home(stage, key)}/{attempt}.json")
        return Attempt(**data) if data else None

    def last_failure(self, stage: str, key: str) -> Attempt | None:
        """The newest attempt, if it failed for a reason that another try would not mend."""
        attempts = self.attempts(stage, key)
        if not attempts or attempts[-1].status != "failed" or attempts[-1].retry:
            return None
        return None if attempts[-1].failure_class == "infrastructure" else attempts[-1]
