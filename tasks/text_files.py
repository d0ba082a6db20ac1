"""Texts in files: a .txt is a document, a .jsonl or .parquet has one in each row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tasks.interface import DataError

SUFFIXES = (".jsonl", ".parquet", ".txt")


def text_files(root: Path, who: str) -> list[Path]:
    """The text files below a directory by their path, or the file that `root` is; `DataError` when there is none."""
    if root.is_file() and root.suffix in SUFFIXES:
        return [root]
    files = sorted(path for path in root.rglob("*") if path.suffix in SUFFIXES and path.is_file())
    if not files:
        raise DataError(f"{who}: no {', '.join(SUFFIXES)} files there")
    return files


def read_texts(file: Path, column: str, who: str) -> list[str]:
    """The documents of a file; `DataError` when it cannot be read or one is not a string."""
    try:
        if file.suffix == ".txt":
            return [file.read_text(encoding="utf-8")]
        rows = _column(file, column)
    except KeyError as error:
        raise DataError(f"{who}: {file.name} has no column {column!r}") from error
    except ValueError as error:
        raise DataError(f"{who}: {file.name} cannot be read: {error}") from error
    for number, text in enumerate(rows, start=1):
        if not isinstance(text, str):
            raise DataError(f"{who}: {file.name}, row {number}: {column!r} is not a string")
    return rows


def _column(file: Path, column: str) -> list[Any]:
    if file.suffix == ".jsonl":
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
        return [line[column] if isinstance(line, dict) else None for line in lines]
    import pyarrow.parquet as pq

    rows: list[Any] = pq.ParquetFile(file).read().column(column).to_pylist()
    return rows
