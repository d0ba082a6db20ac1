from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tasks import registry
from tasks.hub import HubSplit
from tasks.interface import DataError
from tasks.wikitext import Pages
from tasks.wikitext_pages import REPO, REVISION, pages

ROWS = [
    "",
    " = Cat = \n",
    "",
    " A = B is no title \n",
    " = = Life = = \n",
    "",
    " = = = Youth = = = \n",
    " = X = \n",
    " y \n",
]


def test_titles_begin_pages_and_sections_do_not():
    assert pages(ROWS) == [
        " = Cat = \n \n A = B is no title \n = = Life = = \n \n = = = Youth = = = ",
        " = X = \n y \n",
    ]


def test_no_text_makes_no_page():
    assert pages(["", ""]) == []


@pytest.mark.mirror
@pytest.mark.parametrize(
    ("config", "split", "count"),
    [
        ("wikitext-2-raw-v1", "test", 62),
        ("wikitext-2-v1", "test", 62),
        ("wikitext-2-v1", "validation", 60),
        ("wikitext-2-v1", "train", 629),
    ],
)
def test_page_counts_are_those_of_the_document_level_data_set(mirror: Path, config: str, split: str, count: int):
    source = Pages(split=HubSplit(repo=REPO, config=config, split=split, revision=REVISION))
    assert len(source.documents(mirror)) == count


@pytest.mark.mirror
def test_raw_test_pages_have_the_original_files_bytes(mirror: Path):
    """wiki.test.raw has 1,290,590 bytes: its first line (2) and the newlines before 61 titles belong to no page."""
    source = Pages(split=HubSplit(repo=REPO, config="wikitext-2-raw-v1", split="test", revision=REVISION))
    assert sum(len(page.encode()) for page in source.documents(mirror)) == 1_290_590 - 2 - 61


@pytest.mark.mirror
@pytest.mark.parametrize("name", [name for name in registry.names() if name.startswith("wikitext2")])
def test_protocols_find_their_data(mirror: Path, name: str):
    task = registry.load(name)
    task.check(mirror)
    assert task.fingerprint(mirror).startswith("sha256:")
    assert task.fingerprint(None) == f"hub:{REPO}@{REVISION}"


@pytest.mark.parametrize("name", ["wikitext2.token_ppl.v2", "wikitext2v1.window_ppl.v1", "wikitext2.lm_eval.v1"])
def test_a_mirror_with_the_text_of_another_revision_is_refused(write_split: Callable[..., Path], name: str):
    config = "wikitext-2-v1" if name.startswith("wikitext2v1") else "wikitext-2-raw-v1"
    mirror = write_split(REPO, config, "test", text=["", " = Cat = \n", " A cat sat . \n"])
    with pytest.raises(DataError, match=f"{config}, split test: not the text of revision b08601e.*begins with"):
        registry.load(name).source.documents(mirror)


@pytest.mark.mirror
def test_gpt2_tokenizer_counts_the_raw_test_set(mirror: Path):
    """287,644 GPT-2 tokens, the length that transformers' perplexity example reports."""
    from transformers import AutoTokenizer

    from tasks.hub import model_directory

    directory = model_directory("openai-community/gpt2", None, mirror, weights=False)
    task = registry.load("wikitext2.token_ppl.v1")
    text = task.join.join(task.source.documents(mirror))
    assert len(AutoTokenizer.from_pretrained(directory)(text, verbose=False)["input_ids"]) == 287_644
