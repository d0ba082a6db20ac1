"""Corpora to train on: lists of documents in the splits `train`, `validation`, `test`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tasks.hub import HubSplit, combined, digest
from tasks.interface import DataError
from tasks.text_files import read_texts, text_files
from tasks.wikitext_pages import REPO, REVISION, pages

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Exactly one of `embedded`, `hub` and `directory` says where the text is."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid", "strict": True}

    embedded: bool = False
    """The manual of the Python that runs this; needs no files."""
    hub: str | None = None
    """`owner/name` of a data set, in the mirror or on the hub."""
    config: str | None = None
    """Configuration of the hub's data set."""
    revision: str | None = None
    """Commit of the hub's data set; may be left out for WikiText, whose revision is known."""
    directory: str | None = None
    """Folder with .txt (a document each), .jsonl and .parquet files (a document per row), below `train`, `validation`
    and `test` or not; if not, a hash of each document puts 98 % in train and 1 % in either of the others."""
    shards: int | None = None
    """Only the first so many files of the hub's data set."""
    only_train: bool = False
    """The hub's data set has no other split than train: a hash of each document splits it, as in a directory."""
    column: str = "text"
    """Column or key of the text in parquet and jsonl."""

    def __post_init__(self) -> None:
        given = [name for name in ("embedded", "hub", "directory") if getattr(self, name)]
        if len(given) != 1:
            raise DataError(
                f"corpus: give exactly one of embedded, hub, directory (given: {', '.join(given) or 'none'})"
            )
        if self.hub and not self.config:
            raise DataError(f"corpus: hub {self.hub} needs config, the name of its configuration")
        if self.hub and not self._pinned():
            raise DataError(f"corpus: hub {self.hub} needs revision, the commit to read")

    def documents(self, split: str, mirror: Path | None) -> list[str]:
        """The documents of a split in a fixed order; `DataError` when there is no text."""
        assert split in SPLITS, split
        if self.embedded:
            from tasks import embedded

            texts = embedded.documents(split)
        elif self.hub:
            rows = self._hub_split("train" if self.only_train else split).column(self.column, mirror)
            texts = pages(rows) if self.hub == REPO else rows
            texts = [text for text in texts if split_of(text) == split] if self.only_train else texts
        else:
            texts = list(self._directory_documents(split))
        self._require_text(split, texts)
        return [text for text in texts if text.strip()]

    def fingerprint(self, mirror: Path | None) -> str:
        """What text this is: a hash of the files at hand, else `hub:<repo>@<revision>`."""
        if self.embedded:
            from tasks import embedded

            return embedded.fingerprint()
        if self.hub:
            return combined(self._hub_split(split).fingerprint(mirror) for split in self._hub_splits)
        return f"sha256:{digest(self._files(), self._root())}"

    def check(self, mirror: Path | None) -> None:
        """Raise `DataError` when the training or validation text cannot be had."""
        if self.hub:
            for split in self._hub_splits:
                self._hub_split(split).check(mirror)
        elif self.directory:
            for split in ("train", "validation"):
                self._require_text(split, self._directory_documents(split))

    def __str__(self) -> str:
        if self.embedded:
            return "corpus embedded"
        return f"corpus {self.hub} {self.config}" if self.hub else f"corpus {self.directory}"

    def _pinned(self) -> str:
        return self.revision or (REVISION if self.hub == REPO else "")

    @property
    def _hub_splits(self) -> tuple[str, ...]:
        return ("train",) if self.only_train else ("train", "validation")

    def _hub_split(self, split: str) -> HubSplit:
        where = {"repo": self.hub or "", "config": self.config or "", "revision": self._pinned()}
        return HubSplit(split=split, shards=self.shards if split == "train" else None, **where)

    def _root(self) -> Path:
        return Path(self.directory or "").expanduser()

    def _files(self) -> list[Path]:
        return text_files(self._root(), str(self))

    def _require_text(self, split: str, texts: Iterable[str]) -> None:
        if not any(text.strip() for text in texts):
            raise DataError(f"{self}: no text in split {split}")

    def _directory_documents(self, split: str) -> Iterator[str]:
        files, root = self._files(), self._root()
        if (root / "train").is_dir():
            chosen = [file for file in files if file.relative_to(root).parts[0] == split]
            return (text for file in chosen for text in read_texts(file, self.column, str(self)))
        texts = (text for file in files for text in read_texts(file, self.column, str(self)))
        return (text for text in texts if split_of(text) == split)


def split_of(document: str) -> str:
    """The split a document belongs to, by a hash of its text: 98 % train, 1 % validation, 1 % test."""
    bucket = int.from_bytes(hashlib.sha256(document.encode()).digest()[:8], "big") % 100
    return {98: "validation", 99: "test"}.get(bucket, "train")
