"""Unfinished work of a stage in the store, shared by all attempts at its key."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from results.artifacts import Artifacts
from results.store import sha256

COMPLETE = "complete.json"


class StoredCheckpoints:
    """Checkpoints of a key: `<step>-<attempt>/`, complete when `complete.json` is there, which lists the files.

    Args:
        kept: so many of the newest stay.
        warn: told, in one line, of a checkpoint that is damaged.
    """

    def __init__(
        self,
        artifacts: Artifacts,
        stage: str,
        key: str,
        attempt: str,
        *,
        kept: int = 2,
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.store = artifacts.store
        self.home = f"{artifacts.home(stage, key)}/checkpoints"
        self.attempt, self.kept, self.warn = attempt, kept, warn

    def latest(self) -> tuple[int, Path] | None:
        """Step and local directory of the newest checkpoint whose files are as they were written."""
        for name in reversed(self._complete()):
            directory, facts = self._at_hand(name), self.store.read_json(f"{self.home}/{name}/{COMPLETE}")
            reason = _damage(directory, facts)
            if not reason:
                return int(name.split("-")[0]), directory
            self.warn(f"checkpoint {name}: {reason}; an earlier one is used, or the start")
        return None

    @contextmanager
    def writing(self, step: int) -> Iterator[Path]:
        """A local directory that becomes the newest checkpoint when the block ends without an error."""
        name = f"{self.home}/{step:09d}-{self.attempt}"
        if self.store.local:
            directory = self.store.local / name
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
        else:
            directory = Path(tempfile.mkdtemp(prefix="weighin-checkpoint-"))
        try:
            yield directory
            files = {path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in directory.iterdir()}
            if not self.store.local:
                self.store.move_in(directory, name)
            self.store.write(f"{name}/{COMPLETE}", json.dumps({"step": step, "files": files}).encode())
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        for old in self._complete()[: -self.kept]:
            self.store.remove(f"{self.home}/{old}")

    def _complete(self) -> list[str]:
        return [n for n in self.store.names(self.home) if self.store.exists(f"{self.home}/{n}/{COMPLETE}")]

    def _at_hand(self, name: str) -> Path:
        if self.store.local:
            return self.store.local / self.home / name
        target = Path(tempfile.mkdtemp(prefix="weighin-checkpoint-"))
        for file in self.store.names(f"{self.home}/{name}"):
            self.store.fs.get_file(self.store.path(f"{self.home}/{name}/{file}"), str(target / file))
        return target


def _damage(directory: Path, facts: Any) -> str:
    """What is wrong with a checkpoint's files, by their sizes and checksums; empty when nothing is."""
    files: Mapping[str, Any] | None = facts.get("files") if isinstance(facts, dict) else None
    if not files:
        return f"{COMPLETE} cannot be read"
    for name, fact in files.items():
        path = directory / name
        size = path.stat().st_size if path.is_file() else None
        if size != fact["bytes"]:
            return f"{name} is missing" if size is None else f"{name} has {size} of {fact['bytes']} bytes"
        if sha256(path) != fact["sha256"]:
            return f"{name} does not match its checksum"
    return ""
