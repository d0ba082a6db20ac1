from __future__ import annotations

from collections import Counter

import pytest

from tasks import embedded, embedded_tasks, registry
from tasks.embedded_tasks import PydocFollows, PydocReversed
from tasks.interface import DataError

TASKS = [PydocReversed, PydocFollows]


@pytest.fixture
def small_library(tmp_path, monkeypatch):
    """Replaces the standard library by two modules and the manual by one topic; call it with the second's text."""
    sentences = [f"The method number {i} returns a new list of all items that it has seen." for i in range(12)]

    def write(text: str) -> None:
        (tmp_path / "json").mkdir(exist_ok=True)
        (tmp_path / "json" / "tool.py").write_text(f'"""{" ".join(sentences)}"""\n')
        (tmp_path / "string.py").write_text(f'"""{text}"""\n')
        (tmp_path / "stray.py").write_text('"""This module is of somebody else and no part of the library."""\n')
        monkeypatch.setattr(embedded, "_topics", lambda: iter([("topic/x", [f"{' '.join(sentences)}\n\n{text}"])]))
        monkeypatch.setattr(embedded.os, "__file__", str(tmp_path / "os.py"))
        embedded._corpus.cache_clear()

    yield write
    embedded._corpus.cache_clear()


def names():
    return [name for split in embedded.SPLITS for name in embedded.paragraphs_by_document(split)]


def test_splits_hold_different_documents_and_no_paragraph_twice():
    paragraphs = [p for s in embedded.SPLITS for ps in embedded.paragraphs_by_document(s).values() for p in ps]
    assert len(set(names())) == len(names())
    assert len(set(paragraphs)) == len(paragraphs)


def test_the_corpus_is_large_enough_to_pretrain_on_and_to_measure_with():
    sizes = {split: sum(map(len, embedded.documents(split))) for split in embedded.SPLITS}
    assert sizes["train"] > 800_000
    assert min(sizes["validation"], sizes["test"]) > 30_000


def test_documents_are_text_of_this_python():
    text = "\n".join(embedded.documents("train"))
    assert "Assert statements are a convenient way" in "\n".join(
        map("\n".join, map(embedded.documents, embedded.SPLITS))
    )
    assert ">>>" not in text
    assert "::=" not in text


def test_an_unknown_split_is_refused():
    with pytest.raises(DataError, match="no split 'dev'; known: train, validation, test"):
        embedded.documents("dev")


def test_the_split_of_a_document_depends_on_its_name_alone():
    assert {embedded.split_of(name) for name in map(str, range(200))} == set(embedded.SPLITS)
    for split in embedded.SPLITS:
        assert {embedded.split_of(name) for name in embedded.paragraphs_by_document(split)} == {split}


def test_docstrings_come_in_source_order_without_running_the_source():
    source = b'"""a"""\nraise SystemExit\nclass C:\n    "b"\n    def f(self):\n        "c"\n\nasync def g():\n    "d"\n'
    assert list(embedded.docstrings(source)) == ["a", "b", "c", "d"]


def test_prose_keeps_sentences_and_drops_code():
    text = "Return the sum\n  of all items.\n\n   x = f(1) + g(2, y=3) * 7\n\n>>> print the sum of all items"
    assert list(embedded.prose(text)) == ["Return the sum of all items."]


def test_the_fingerprint_changes_with_the_text_and_with_nothing_else(small_library):
    prints = []
    for word in ("first", "second", "first"):
        small_library(f"The {word} word of this text is another one. " * 12)
        prints.append(embedded.fingerprint())
    assert prints[0] == prints[2] != prints[1]


def test_repeated_paragraphs_stay_with_the_first_document_and_foreign_modules_are_left_out(small_library):
    small_library("Some words that are only in the second module of this library. " * 12)
    assert names() == ["topic/x"]


@pytest.mark.parametrize("task", TASKS)
def test_examples_are_balanced_distinct_and_of_the_promised_size(task):
    for split, size, least in (("train", task.train_size, task.train_size), ("validation", 1000, 1000)):
        examples = task().examples(split, None)
        texts = list(zip(examples.first, examples.second or examples.first, strict=True))
        assert least <= len(examples) <= size
        assert abs(Counter(examples.labels)[0] - Counter(examples.labels)[1]) <= 1
        assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("task", TASKS)
def test_validation_examples_are_not_in_the_training_documents(task):
    read = [" ".join(text.split()) for text in embedded.documents("train")]
    examples = task().examples("validation", None)
    restored = [restore(*row) for row in rows(examples)]
    training = {restore(*row) for row in rows(task().examples("train", None))}
    assert training.isdisjoint(restored)
    assert sum(any(phrase in text for text in read) for phrase in restored[:200]) <= 10


@pytest.mark.parametrize("task", TASKS)
def test_training_examples_with_label_0_read_as_in_the_corpus_and_those_with_label_1_do_not(task):
    text = " ".join(" ".join(embedded.documents("train")).split())
    for first, second, label in rows(task().examples("train", None, limit=200)):
        assert restore(first, second, label) in text
        if label:
            assert f"{first} {second or ''}".strip() not in text


@pytest.mark.parametrize("task", TASKS)
def test_limit_keeps_the_same_examples_and_both_labels(task):
    whole, part = task().examples("train", None), task().examples("train", None, limit=50)
    assert list(rows(part)) == list(rows(whole))[:50]
    assert Counter(part.labels) == {0: 25, 1: 25}


@pytest.mark.parametrize("task", TASKS)
def test_score_is_the_fraction_right(task):
    assert task().score([0, 1, 1, 0], [0, 1, 0, 0]) == {"accuracy": 0.75}


@pytest.mark.parametrize("name", ["pydoc.reversed.v1", "pydoc.follows.v1", "pydoc.token_ppl.v1", "pydoc.lm_eval.v1"])
def test_registered_under_its_name_with_the_corpus_as_its_data(name):
    task = registry.load(name)
    task.check(None)
    assert task.name == name
    assert task.fingerprint(None) == embedded.fingerprint()


def test_perplexity_is_measured_on_documents_that_training_does_not_read():
    source = embedded_tasks.PydocTokens.source
    assert source.documents(None) == embedded.documents("test")


def test_token_perplexity_of_a_model_that_knows_nothing_is_the_size_of_its_vocabulary(model, tokenizer):
    import torch

    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()
    task = embedded_tasks.PydocTokens()
    task.limit_windows = 4
    assert task.measure(model, tokenizer, None).metrics["ppl"] == pytest.approx(model.config.vocab_size, rel=1e-6)


def rows(examples):
    return zip(examples.first, examples.second or [None] * len(examples), examples.labels, strict=True)


def restore(first, second, label):
    """The phrase an example was made from, by undoing the alteration."""
    words = f"{first} {second or ''}".split()
    return " ".join(words[::-1] if label else words)
