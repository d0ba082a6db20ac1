"""The embedded corpus: English prose that ships with CPython, split by document.

A document is a topic of the language manual (`pydoc_data.topics`) or the docstrings of one standard-library module,
read through its syntax tree; nothing is executed. Only paragraphs of prose are kept, each at its first occurrence in
the whole corpus, so that no split repeats a paragraph of another. The text differs between Python versions:
`fingerprint` says which one it is.
"""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from types import MappingProxyType

from tasks.interface import DataError

SPLITS = ("train", "validation", "test")
SKIPPED = frozenset({"__pycache__", "site-packages", "dist-packages", "test", "tests", "idle_test"}) | frozenset(
    {"distutils", "encodings", "ensurepip", "idlelib", "lib2to3", "msilib", "pydoc_data", "turtledemo", "venv"}
)
"""Directories without prose, or that distributions leave out."""
SMALLEST_DOCUMENT = 400
"""Characters; modules with less prose are left out."""

_WORD = re.compile(r"[\"'(*`]*[A-Za-z][a-z']*(-[a-z]+)?[\"')*`.,;:!?]*")
_BLANK_LINES = re.compile(r"\n\s*\n")


def documents(split: str) -> list[str]:
    """The documents of `train`, `validation` or `test` (about 14, 1 and 1 sixteenths), in a fixed order.

    Paragraphs of a document are separated by newlines.

    Raises:
        DataError: for another split, or when this Python has no manual.
    """
    return ["\n".join(paragraphs) for paragraphs in paragraphs_by_document(split).values()]


def paragraphs_by_document(split: str) -> Mapping[str, tuple[str, ...]]:
    """Name of each document of a split -> its paragraphs, one line each."""
    if split not in SPLITS:
        raise DataError(f"embedded corpus: no split {split!r}; known: {', '.join(SPLITS)}")
    return MappingProxyType({name: text for name, text in _corpus().items() if split_of(name) == split})


def fingerprint() -> str:
    """`sha256:<hex>` of the files that the documents are read from: quick, because nothing is parsed."""
    total = sha256()
    for name, content in _sources(Path(os.__file__).parent):
        total.update(f"{name} {sha256(content).hexdigest()}\n".encode())
    return f"sha256:{total.hexdigest()}"


def split_of(name: str) -> str:
    """The split of a document, by a hash of its name: it does not move when other documents come or go."""
    return {0: "validation", 1: "test"}.get(sha256(name.encode()).digest()[0] % 16, "train")


@cache
def _corpus() -> Mapping[str, tuple[str, ...]]:
    seen: set[str] = set()
    corpus = {}
    for name, texts in (*_topics(), *_modules(Path(os.__file__).parent)):
        fresh = dict.fromkeys(line for text in texts for line in prose(text) if line not in seen)
        if sum(map(len, fresh)) >= SMALLEST_DOCUMENT:
            corpus[name] = tuple(fresh)
            seen.update(fresh)
    return MappingProxyType(corpus)


def _topics() -> Iterator[tuple[str, list[str]]]:
    try:
        topics: dict[str, str] = import_module("pydoc_data.topics").topics
    except ImportError as error:
        raise DataError("embedded corpus: this Python has no pydoc_data.topics; install its documentation") from error
    for name in sorted(topics):
        yield f"topic/{name}", [topics[name]]


def _modules(library: Path) -> Iterator[tuple[str, list[str]]]:
    for path in _module_paths(library):
        parts = path.relative_to(library).with_suffix("").parts
        yield f"module/{'.'.join(parts)}", list(docstrings(path.read_bytes()))


def _sources(library: Path) -> Iterator[tuple[str, bytes]]:
    """Name and contents of every file that is read."""
    for path in (library / "pydoc_data" / "topics.py", *_module_paths(library)):
        if path.is_file():
            yield path.relative_to(library).as_posix(), path.read_bytes()


def _module_paths(library: Path) -> Iterator[Path]:
    paths: list[Path] = []
    for folder, folders, files in os.walk(library):
        folders[:] = [name for name in folders if name not in SKIPPED and name.isidentifier()]
        paths += [Path(folder, name) for name in files if name.endswith(".py")]
    for path in sorted(paths):
        if path.relative_to(library).with_suffix("").parts[0] in sys.stdlib_module_names:
            yield path


def docstrings(source: bytes) -> Iterator[str]:
    """The docstrings of a module, its classes and functions, in source order."""
    pending: list[ast.AST] = [ast.parse(source)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield text
            pending.extend(reversed(node.body))


def prose(text: str) -> Iterator[str]:
    """The paragraphs of `text` that are sentences rather than code, tables or grammar, each on one line."""
    for paragraph in _BLANK_LINES.split(text):
        words = paragraph.split()
        plain = sum(_WORD.fullmatch(word) is not None for word in words)
        if len(words) >= 5 and plain >= 0.7 * len(words) and ">>>" not in words:
            yield " ".join(words)
