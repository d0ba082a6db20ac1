"""A text of one's own under the local protocols."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks import registry
from tasks.interface import DataError
from tasks.local import LocalText

LOCAL = [name for name in registry.names() if name.startswith("local.")]


@pytest.fixture
def texts(tmp_path: Path, documents: list[str]) -> Path:
    directory = tmp_path / "texts"
    directory.mkdir()
    (directory / "a.txt").write_text(documents[0])
    rows = [{"text": documents[1]}, {"text": ""}, {"text": documents[2]}]
    (directory / "b.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return directory


def test_a_directorys_documents_are_in_the_order_of_its_files(texts: Path, documents: list[str]):
    assert LocalText(path=texts).documents(None) == [documents[0], documents[1], "", documents[2]]
    assert LocalText(path=texts / "a.txt").documents(None) == [documents[0]]


def test_the_fingerprint_is_the_content(texts: Path):
    before = LocalText(path=texts).fingerprint(None)
    (texts / "a.txt").write_text("another")
    assert before.startswith("sha256:")
    assert LocalText(path=texts).fingerprint(None) != before


@pytest.mark.parametrize("name", LOCAL)
def test_every_local_protocol_measures_it(name: str, texts: Path, model: Any, tokenizer: Any):
    found = registry.load(name).reading(texts).measure(model, tokenizer, None)
    assert all(value > 1 for value in found.metrics.values())
    assert found.details["empty_documents"] == 1


@pytest.mark.parametrize("name", LOCAL)
def test_without_a_text_it_says_how_to_name_one(name: str):
    with pytest.raises(DataError, match="no text is named: `text: PATH` beside the task, or --text PATH"):
        registry.load(name).check(None)


def test_a_path_without_texts_is_one_line(tmp_path: Path):
    with pytest.raises(DataError, match=r"no .jsonl, .parquet, .txt files there"):
        registry.load("local.token_ppl.v1").reading(tmp_path / "nowhere").check(None)
    assert registry.load("local.token_ppl.v1").source.path is None
