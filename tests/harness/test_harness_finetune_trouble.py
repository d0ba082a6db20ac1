"""Examples and models that fine-tuning cannot take: a failed row that says so, never a silent number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from micro_sweep import sweep, weighin, write
from transformers import GPT2Config, GPT2ForSequenceClassification

from harness.stage import Context, NoCheckpoints, StageFailure, silent
from harness.stages.classifier import Classifier
from methods.recipe import FineTune
from results.store import Store
from tasks.glue import REPO, Cola
from tasks.interface import Examples
from tasks.tokenizer import train

pytestmark = pytest.mark.sweep

TEXTS = ["the cat sat on the mat", "a dog ran under the hill"]


@pytest.mark.parametrize(
    ("split", "columns", "reason"),
    [
        ("validation", {"label": [0, 1, 7]}, "glue.cola.v1: label 7 in row 2 of validation; expected 0 to 1"),
        ("train", {"label": [0, -1, 1]}, "glue.cola.v1: label -1 in row 1 of train; expected 0 to 1"),
        ("train", {"sentence": ["a", "b", None]}, "split train: None in column 'sentence', row 2; expected a text"),
        ("train", {"text": ["a"] * 3, "sentence": None}, "split train: no column 'sentence' in train-0.parquet"),
    ],
)
def test_examples_that_a_task_does_not_have(
    corpus: Path, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, split: str, columns: Any, reason: str
) -> None:
    good = {"sentence": ["a cat", "", "the dog ran"], "label": [0, 1, 1]}
    directory = tmp_path / "mirror" / "datasets" / REPO / "cola"
    directory.mkdir(parents=True)
    for name in ("train", "validation"):
        table = {key: rows for key, rows in (good | (columns if name == split else {})).items() if rows is not None}
        pq.write_table(pa.table(table), directory / f"{name}-0.parquet")
    finetune = {"learning_rate": 1e-3, "epochs": 1, "max_length": 16, "batch_examples": 2}
    asked = sweep(corpus, methods=["identity"], recipes=["none"], tasks=["glue.cola.v1"], finetune=finetune)
    options = ["--mirror", tmp_path / "mirror", "--on", "inline"]
    store = tmp_path_factory.getbasetemp() / "finetune-trouble"  # one teacher for all
    ended = weighin("run", write(tmp_path / "sweep.yaml", asked), "--store", store, *options)
    assert ended.code == 1
    failures = [record.failure for record in Store(str(store)).records()]
    assert [failure.failure_class for failure in failures if failure and reason in failure.reason] == ["data"]


def classifier(vocab: int) -> Classifier:
    """For CoLA, with a tokenizer of 270 entries."""
    torch.manual_seed(0)
    config = GPT2Config(n_layer=1, n_embd=16, n_head=2, n_positions=32, vocab_size=vocab, num_labels=2)
    context = Context(params={"seed": 0}, inputs={}, output=Path(), checkpoints=NoCheckpoints(), progress=silent)
    return Classifier(
        context=context,
        task=Cola(),
        recipe=FineTune(learning_rate=1e-3, max_length=16),
        model=GPT2ForSequenceClassification(config),
        tokenizer=train(TEXTS, 270),
        teacher=None,
        taps=(),
        flops_per_token=1.0,
    )


def test_a_tokenizer_that_is_not_the_model_s() -> None:
    examples = Examples(first=TEXTS, second=None, labels=[0, 1])
    encoded = classifier(270).encoded(examples)
    largest = max(max(ids) for ids in encoded.input_ids)
    with pytest.raises(StageFailure, match=f"the tokenizer gives token {largest}; the model embeds 260 tokens"):
        classifier(260).encoded(examples)
