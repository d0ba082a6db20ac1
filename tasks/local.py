"""Perplexity of a text of one's own: `text: PATH` beside the task in a sweep, `--text PATH` of `weighin measure`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tasks.hub import digest
from tasks.interface import DataError, Fact, Protocol
from tasks.lm_eval_perplexity import LmEvalPerplexity
from tasks.perplexity import BY_BYTE, TokenPerplexity
from tasks.source import TextSource
from tasks.text_files import read_texts, text_files


@dataclass(frozen=True, kw_only=True)
class LocalText:
    """A file or a directory: a .txt is a document, a .jsonl or .parquet has one in `text` of each row."""

    path: Path | None = None

    def documents(self, mirror: Path | None) -> list[str]:
        return [text for file in self._files() for text in read_texts(file, "text", str(self))]

    def fingerprint(self, mirror: Path | None) -> str:
        files = self._files()
        root = self.path if self.path and self.path.is_dir() else files[0].parent
        return f"sha256:{digest(files, root)}"

    def check(self, mirror: Path | None) -> None:
        self._files()

    def describe(self) -> Mapping[str, Fact]:
        return {"data": str(self.path) if self.path else "a text named where the protocol is used"}

    def _files(self) -> list[Path]:
        if self.path is None:
            raise DataError("no text is named: `text: PATH` beside the task, or --text PATH")
        return text_files(self.path, str(self))

    def __str__(self) -> str:
        return f"text {self.path}"


class OfLocalText(Protocol):
    """A protocol that measures a text named where it is used."""

    source: TextSource = LocalText()

    def reading(self, path: Path) -> Self:
        """This protocol with its text."""
        self.source = LocalText(path=path.expanduser().absolute())
        return self


class LocalTokens(OfLocalText, TokenPerplexity):
    """Perplexity per token of a text of one's own, documents joined by two newlines, context 1024, stride 512."""

    name = "local.token_ppl.v1"
    special_tokens = True
    stride = 512


class LocalBytes(OfLocalText, TokenPerplexity):
    """The same per byte of UTF-8, so that models with different tokenizers can be compared."""

    name = "local.byte_ppl.v1"
    metrics = (BY_BYTE,)
    normaliser = "byte"
    special_tokens = True
    stride = 512


class LocalLmEval(OfLocalText, LmEvalPerplexity):
    """lm-eval's word and byte perplexity of a text of one's own, each document a page."""

    name = "local.lm_eval.v1"
