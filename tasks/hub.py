"""Finds data sets and models: in the mirror first, else on the Hugging Face hub at a pinned revision.

A mirror is a directory with `datasets/<owner>/<name>/<config>/<split>-*.parquet` (or `<split>/*.parquet`, as the hub's
own conversions have it) and `models/<owner>/<name>/`, the hub's own names. What is found in neither place is a
`DataError` of one line.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote
from urllib.request import urlopen

from tasks.interface import DataError

TIMEOUT_S = 5.0
"""How long an unreachable hub may take to be noticed."""
NO_REVISION = "the hub needs a revision, the commit to read"
NO_PIN = "the hub is not asked: which commit of it holds this data is not known"
OFFLINE = "the hub may not be asked (HF_HUB_OFFLINE is set)"
MODEL_FILES = ("*.safetensors", "*.json", "*.txt", "*.model")
"""Weights, configuration and tokenizer; never a pickle."""


@dataclass(frozen=True, kw_only=True)
class HubSplit:
    """One split of one configuration of a data set whose repository stores it as parquet files."""

    repo: str
    config: str
    split: str
    revision: str | None
    """Commit of the repository, 40 hex digits (or a ref, where the text's digest is pinned); used where the mirror does
    not have the split. None: only a mirror can have it."""
    shards: int | None = None
    """Only the first so many files of the split."""

    @property
    def _patterns(self) -> tuple[str, ...]:
        if self.shards is None:
            return f"{self.config}/{self.split}-*.parquet", f"{self.config}/{self.split}/*.parquet"
        return tuple(f"{self.config}/{self.split}-{number:05d}-of-*.parquet" for number in range(self.shards))

    def files(self, mirror: Path | None) -> list[Path]:
        """The parquet files in order; downloaded when neither the mirror nor the hub's cache has them."""
        if mirrored := self._mirrored(mirror):
            return mirrored
        if self.revision is None:
            raise self._missing(mirror, NO_PIN)
        directory, why = _snapshot(self.repo, "dataset", self.revision, self._patterns)
        if files := self._matching(directory) if directory else []:
            return files
        raise self._missing(mirror, why or "the hub's repository has no such parquet files")

    def column(self, name: str, mirror: Path | None) -> list[Any]:
        """All rows of one column."""
        import pyarrow.parquet as pq

        rows: list[Any] = []
        for file in self.files(mirror):
            columns = pq.read_schema(file).names
            if name not in columns:
                raise DataError(f"{self}: no column {name!r} in {file.name}; columns: {', '.join(columns)}")
            rows += pq.read_table(file, columns=[name]).column(name).to_pylist()
        return rows

    def fingerprint(self, mirror: Path | None) -> str:
        """`sha256:<digest of the mirror's files>`, else `hub:<repo>@<revision>`; nothing is downloaded."""
        if mirrored := self._mirrored(mirror):
            return f"sha256:{digest(mirrored, mirrored[0].parent)}"
        return f"hub:{self.repo}@{self.revision or 'unknown'}"

    def check(self, mirror: Path | None) -> None:
        """Raise `DataError` unless the mirror, the hub's cache or the reachable hub has the split."""
        if self._mirrored(mirror):
            return
        if self.revision is None:
            raise self._missing(mirror, NO_PIN)
        if _cached(self.repo, "dataset", self.revision, self._patterns):
            return
        if why := _unreachable(self.repo, "dataset", self.revision):
            raise self._missing(mirror, why)

    def _mirrored(self, mirror: Path | None) -> list[Path]:
        if mirror is None:
            return []
        return self._matching(mirror / "datasets" / self.repo)

    def _matching(self, directory: Path) -> list[Path]:
        return sorted(file for pattern in self._patterns for file in directory.glob(pattern))

    def describe(self) -> dict[str, str | None]:
        """Where it is to be had, flat."""
        return {"data": self.repo, "config": self.config, "split": self.split, "revision": self.revision}

    def _missing(self, mirror: Path | None, why: str) -> DataError:
        return DataError(f"{self}: {_absent(mirror)}, and {why}")

    def __str__(self) -> str:
        return f"data set {self.repo}, config {self.config}, split {self.split}"


def combined(fingerprints: Iterable[str]) -> str:
    """One fingerprint for several parts: the one they share, else a hash over all."""
    parts = list(fingerprints)
    if len(set(parts)) == 1:
        return parts[0]
    return f"sha256:{hashlib.sha256(' '.join(parts).encode()).hexdigest()}"


def digest(files: list[Path], root: Path) -> str:
    """SHA-256 over the contents of files and their paths below `root`, in the order given."""
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"{file.relative_to(root).as_posix()} {content}\n".encode())
    return total.hexdigest()


def model_directory(model_id: str, revision: str | None, mirror: Path | None, *, weights: bool = True) -> Path:
    """A local directory with the model's configuration, tokenizer and, unless told otherwise, safetensors.

    `revision` (a commit) is needed where the mirror does not have them; `DataError` when the hub has not either.
    """
    if mirrored := _mirrored_model(model_id, mirror, weights=weights):
        return mirrored
    directory, why = None, NO_REVISION
    if revision is not None:
        directory, why = _snapshot(model_id, "model", revision, MODEL_FILES if weights else MODEL_FILES[1:])
    if directory is not None and _complete(directory, weights=weights):
        return directory
    raise _missing_model(model_id, mirror, why or "the hub has no config.json and safetensors for it")


def model_fingerprint(model_id: str, revision: str | None, mirror: Path | None) -> str:
    """`sha256:<digest of the mirror's files>`, else `hub:<model>@<revision>`; nothing is downloaded."""
    if mirrored := _mirrored_model(model_id, mirror, weights=True):
        return f"sha256:{digest(sorted(f for p in MODEL_FILES for f in mirrored.glob(p)), mirrored)}"
    if revision is None:
        raise _missing_model(model_id, mirror, NO_REVISION)
    return f"hub:{model_id}@{revision}"


def check_model(model_id: str, revision: str | None, mirror: Path | None) -> None:
    """Raise `DataError` unless the mirror, the hub's cache or the reachable hub has the weights."""
    if _mirrored_model(model_id, mirror, weights=True):
        return
    if revision is None:
        raise _missing_model(model_id, mirror, NO_REVISION)
    if _cached(model_id, "model", revision, MODEL_FILES):
        return
    if why := _unreachable(model_id, "model", revision):
        raise _missing_model(model_id, mirror, why)


def _mirrored_model(model_id: str, mirror: Path | None, *, weights: bool) -> Path | None:
    directory = mirror / "models" / model_id if mirror else None
    return directory if directory is not None and _complete(directory, weights=weights) else None


def _complete(directory: Path, *, weights: bool) -> bool:
    return (directory / "config.json").is_file() and (not weights or any(directory.glob("*.safetensors")))


def _missing_model(model_id: str, mirror: Path | None, why: str) -> DataError:
    where = f"{_absent(mirror)} as safetensors" if mirror else _absent(mirror)
    return DataError(f"model {model_id}: {where}, and {why}")


def _absent(mirror: Path | None) -> str:
    return f"not in the mirror {mirror}" if mirror else "no mirror given (--mirror or WEIGHIN_MIRROR)"


def offline() -> bool:
    """True where the hub may not be asked."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def head_commit(repo: str, mirror: Path | None) -> str:
    """The commit that the `main` of a data set is at; `DataError`: neither the mirror nor the hub has it, and why."""
    try:
        return _head_commit(repo)
    except DataError as error:
        raise DataError(f"{_absent(mirror)}, and {error}") from None


@cache
def _head_commit(repo: str) -> str:
    from huggingface_hub import constants

    if offline():
        raise DataError(OFFLINE)
    try:
        with urlopen(f"{constants.ENDPOINT}/api/datasets/{quote(repo)}", timeout=TIMEOUT_S) as answer:
            return str(json.load(answer)["sha"])
    except OSError as error:
        raise DataError(f"the hub cannot serve it ({_first_line(error)})") from error


Kind = Literal["dataset", "model"]


def _snapshot(repo: str, kind: Kind, revision: str, patterns: tuple[str, ...]) -> tuple[Path | None, str]:
    """Directory of the repository's files that match, or None and why."""
    from huggingface_hub import snapshot_download

    if cached := _cached(repo, kind, revision, patterns):
        return cached, ""
    if why := _unreachable(repo, kind, revision):
        return None, why
    try:
        found = snapshot_download(
            repo, repo_type=kind, revision=revision, allow_patterns=list(patterns), etag_timeout=TIMEOUT_S
        )
    except OSError as error:
        return None, f"the download from the hub failed ({_first_line(error)})"
    return Path(found), ""


def _cached(repo: str, kind: Kind, revision: str, patterns: tuple[str, ...]) -> Path | None:
    """The hub cache's copy, when it has files of the split, or of a model those that match the first pattern."""
    from huggingface_hub import snapshot_download

    try:
        found = Path(snapshot_download(repo, repo_type=kind, revision=revision, local_files_only=True))
    except OSError:
        return None
    needed = patterns if kind == "dataset" else patterns[:1]
    return found if any(next(found.glob(pattern), None) for pattern in needed) else None


def _unreachable(repo: str, kind: Kind, revision: str) -> str:
    """Why the hub cannot serve the revision, or nothing when it can; takes `TIMEOUT_S` at most."""
    from huggingface_hub import constants

    if offline():
        return OFFLINE
    url = f"{constants.ENDPOINT}/api/{kind}s/{repo}/revision/{quote(revision, safe='')}"
    try:
        with urlopen(url, timeout=TIMEOUT_S):
            return ""
    except OSError as error:
        return f"the hub cannot serve it ({_first_line(error)})"


def _first_line(error: OSError) -> str:
    return str(error).partition("\n")[0]
