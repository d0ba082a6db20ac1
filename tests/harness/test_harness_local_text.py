"""A sweep that measures a text of one's own: `text: PATH` beside a `local.*` task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from micro_sweep import WORDS, board_rows, made, weighin, write

from tasks import registry
from tasks.tokenizer import train


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    """A teacher's directory and a text, measured as it is."""
    from transformers import GPT2Config, GPT2LMHeadModel

    text = tmp_path / "text.txt"
    text.write_text(" ".join(WORDS * 12))
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=270, n_embd=16, n_layer=2, n_head=2, n_positions=32, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "teacher")
    train([text.read_text()], 270).save_pretrained(tmp_path / "teacher")
    return {
        "name": "local",
        "teacher": {"name": "tiny", "directory": str(tmp_path / "teacher")},
        "methods": ["identity"],
        "budgets": [{"params": 0.8}],
        "recipes": ["none"],
        "tasks": [{"task": "local.token_ppl.v1", "text": str(text)}],
    }


def test_the_texts_content_is_what_is_measured_and_named(content: dict[str, Any], tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from methods import student

    path, store = write(tmp_path / "local.yaml", content), tmp_path / "store"
    assert weighin("run", path, "--store", store, "--on", "inline").code == 0
    (row,) = board_rows(weighin("board", "--store", store, "--format", "json").data).values()
    (score,) = row["quality"].values()
    task = registry.load("local.token_ppl.v1").reading(tmp_path / "text.txt")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "teacher")
    found = task.measure(student.load(tmp_path / "teacher").eval(), tokenizer, None)
    assert score["value"] == pytest.approx(found.metrics["ppl"], rel=1e-6)
    before = {key for stage, key, _ in made(store) if stage == "evaluate"}
    (tmp_path / "text.txt").rename(tmp_path / "moved.txt")
    content["tasks"][0]["text"] = str(tmp_path / "moved.txt")
    (tmp_path / "moved.txt").write_text("another text of a cat and a dog")
    write(path, content)
    assert weighin("run", path, "--store", store, "--on", "inline").code == 0
    assert len({key for stage, key, _ in made(store) if stage == "evaluate"} - before) == 1


@pytest.mark.ray
@pytest.mark.timeout(240)
def test_two_workers_of_a_gang_share_it(content: dict[str, Any], tmp_path: Path) -> None:
    path = write(tmp_path / "local.yaml", content)
    assert weighin("run", path, "--store", tmp_path / "one", "--on", "inline").code == 0
    write(path, content | {"resources": {"evaluate": {"workers": 2}}})
    ended = weighin("run", path, "--store", tmp_path / "two")
    assert ended.code == 0, ended
    one, two = (
        next(iter(board_rows(weighin("board", "--store", tmp_path / store, "--format", "json").data).values()))
        for store in ("one", "two")
    )
    for column, score in one["quality"].items():
        assert two["quality"][column]["value"] == pytest.approx(score["value"], rel=1e-6)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("local.token_ppl.v1", "local.token_ppl.v1 measures a text of yours: give `text: PATH`"),
        ({"task": "local.token_ppl.v1", "text": "nowhere"}, "nowhere: no .jsonl, .parquet, .txt files there"),
        ({"task": "pydoc.token_ppl.v1", "text": "nowhere"}, "pydoc.token_ppl.v1 has its own text"),
    ],
)
def test_a_text_that_is_missing_or_of_no_use_is_one_line(
    content: dict[str, Any], tmp_path: Path, task: Any, message: str
) -> None:
    path = write(tmp_path / "local.yaml", content | {"tasks": [task]})
    ended = weighin("run", path, "--store", tmp_path / "store", "--on", "inline")
    assert ended.code == 2
    assert message in ended.err
    assert len(ended.err.splitlines()) <= 2
