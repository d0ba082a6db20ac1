from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from tasks.corpora import Corpus, split_of
from tasks.interface import DataError


@pytest.mark.parametrize("fields", [{}, {"embedded": True, "directory": "x"}, {"hub": "a/b", "directory": "x"}])
def test_exactly_one_place_is_given(fields: dict[str, Any]):
    with pytest.raises(DataError, match="exactly one of embedded, hub, directory"):
        Corpus(**fields)


def test_a_hub_corpus_is_pinned():
    with pytest.raises(DataError, match="needs config"):
        Corpus(hub="owner/set")
    with pytest.raises(DataError, match="needs revision"):
        Corpus(hub="owner/set", config="plain")
    assert Corpus(hub="Salesforce/wikitext", config="wikitext-2-v1").fingerprint(None).endswith("685c3")


def test_pydantic_reads_it_strictly():
    adapter = TypeAdapter(Corpus)
    assert adapter.validate_json('{"directory": "texts"}') == Corpus(directory="texts")
    for text in ('{"directory": "x", "colum": "y"}', '{"embedded": "yes"}', "{}"):
        with pytest.raises(ValidationError):
            adapter.validate_json(text)


def test_embedded_has_three_splits_and_a_fingerprint():
    corpus = Corpus(embedded=True)
    corpus.check(None)
    sizes = {split: len(corpus.documents(split, None)) for split in ("train", "validation", "test")}
    assert sizes["train"] > sizes["validation"] > 0 < sizes["test"]
    assert corpus.fingerprint(None).startswith("sha256:")


def test_hub_rows_are_documents_and_wikitext_rows_pages(write_split: Callable[..., Path]):
    rows = [" = A = \n", " x \n", "", " = B = \n", " y \n"]
    write_split("owner/set", "plain", "train", body=rows)
    mirror = write_split("Salesforce/wikitext", "wikitext-2-v1", "train", text=rows)
    plain = Corpus(hub="owner/set", config="plain", revision="1" * 40, column="body")
    assert plain.documents("train", mirror) == [" = A = \n", " x \n", " = B = \n", " y \n"]
    pages = Corpus(hub="Salesforce/wikitext", config="wikitext-2-v1").documents("train", mirror)
    assert pages == [" = A = \n x \n ", " = B = \n y \n"]


@pytest.mark.usefixtures("offline")
def test_check_asks_for_training_and_validation_text(write_split: Callable[..., Path]):
    mirror = write_split("owner/set", "plain", "train", text=["a"])
    corpus = Corpus(hub="owner/set", config="plain", revision="1" * 40)
    with pytest.raises(DataError, match="split validation: not in the mirror"):
        corpus.check(mirror)
    write_split("owner/set", "plain", "validation", text=["b"])
    corpus.check(mirror)
    before = corpus.fingerprint(mirror)
    write_split("owner/set", "plain", "validation", text=["c"])
    assert corpus.fingerprint(mirror) != before


def test_directory_with_split_folders(tmp_path: Path):
    for split in ("train", "validation"):
        (tmp_path / split).mkdir()
    (tmp_path / "train" / "b.txt").write_text("two\nlines\n")
    (tmp_path / "train" / "a.jsonl").write_text('{"text": "first"}\n{"text": "second"}\n{"text": " "}\n')
    (tmp_path / "validation" / "c.txt").write_text("held out")
    corpus = Corpus(directory=str(tmp_path))
    corpus.check(None)
    assert corpus.documents("train", None) == ["first", "second", "two\nlines\n"]
    assert corpus.documents("validation", None) == ["held out"]
    with pytest.raises(DataError, match="no text in split test"):
        corpus.documents("test", None)


def test_directory_is_split_by_document_hash(write_split: Callable[..., Path]):
    texts = [f"document {number}" for number in range(2000)]
    folder = write_split("x/y", "z", "any", text=texts)
    corpus = Corpus(directory=str(folder))
    parts = {split: corpus.documents(split, None) for split in ("train", "validation", "test")}
    assert sorted(text for part in parts.values() for text in part) == sorted(texts)
    assert all(split_of(text) == split for split, part in parts.items() for text in part)
    counts = Counter(map(split_of, texts))
    assert counts["train"] == pytest.approx(1960, abs=25)
    assert min(counts["validation"], counts["test"]) >= 8


def test_directory_fingerprint_follows_content_and_place(tmp_path: Path):
    (tmp_path / "train").mkdir()
    file = tmp_path / "train" / "a.txt"
    file.write_text("one")
    corpus = Corpus(directory=str(tmp_path))
    seen = {corpus.fingerprint(None)}
    file.write_text("two")
    seen.add(corpus.fingerprint(None))
    (tmp_path / "test").mkdir()
    file.rename(tmp_path / "test" / "a.txt")
    seen.add(corpus.fingerprint(None))
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"body": 1}', "a.jsonl has no column 'text'"),
        ("a.jsonl", b"not json", "a.jsonl cannot be read"),
        ("a.jsonl", b'{"text": 3}', "a.jsonl, row 1: 'text' is not a string"),
        ("a.jsonl", b"[3]", "a.jsonl, row 1: 'text' is not a string"),
        ("a.txt", b"\xff\xfe", "a.txt cannot be read"),
        ("a.txt", b" \n", "no text in split train"),
        ("a.parquet", b"nothing", "a.parquet cannot be read"),
        ("a.pdf", b"", "no .jsonl, .parquet, .txt files there"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes, message: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        Corpus(directory=str(tmp_path)).documents("train", None)


def test_jsonl_keeps_unusual_line_separators_inside_a_document(tmp_path: Path):
    text = "one\u2028two"
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.jsonl").write_text(json.dumps({"text": text}, ensure_ascii=False), encoding="utf-8")
    assert Corpus(directory=str(tmp_path)).documents("train", None) == [text]


@pytest.mark.mirror
def test_wikitext_from_the_mirror(mirror: Path):
    corpus = Corpus(hub="Salesforce/wikitext", config="wikitext-2-v1")
    corpus.check(mirror)
    assert len(corpus.documents("train", mirror)) == 629
    assert "<unk>" in corpus.documents("validation", mirror)[0]


def test_a_data_set_with_only_a_training_split_is_split_by_hash(write_split: Callable[..., Path]):
    rows = [f"document {number}" for number in range(400)]
    mirror = write_split("owner/set", "plain", "train", text=rows)
    corpus = Corpus(hub="owner/set", config="plain", revision="1" * 40, only_train=True)
    corpus.check(mirror)
    found = {split: corpus.documents(split, mirror) for split in ("train", "validation", "test")}
    assert sorted(text for texts in found.values() for text in texts) == sorted(rows)
    assert all(split_of(text) == split for split, texts in found.items() for text in texts)


def test_shards_are_the_first_files(tmp_path: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    home = tmp_path / "datasets" / "owner" / "set" / "plain"
    home.mkdir(parents=True)
    for number in range(3):
        pq.write_table(pa.table({"text": [f"file {number}"]}), home / f"train-{number:05d}-of-00003.parquet")
    two = Corpus(hub="owner/set", config="plain", revision="1" * 40, shards=2)
    assert two.documents("train", tmp_path) == ["file 0", "file 1"]
    everything = Corpus(hub="owner/set", config="plain", revision="1" * 40, only_train=True)
    assert Corpus(**{**vars(everything), "shards": 2}).fingerprint(tmp_path) != everything.fingerprint(tmp_path)
