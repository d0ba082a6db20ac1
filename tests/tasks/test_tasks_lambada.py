"""LAMBADA's last words, beside lm-eval's own task."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tasks import registry
from tasks.interface import DataError, Run
from tasks.lambada import LambadaLastWord

REPO = "EleutherAI/lambada_openai"
PASSAGES = [
    "the cat sat on a mat and the dog ran under the hill and sat on the mat",
    "a small dog ran quickly , then a red cat ran quickly",
    "a cat  ran",
    "the red cat , the small dog and the hill " * 3 + "and then the cat sat on the red dog",
]


@pytest.fixture
def mirror(write_split: Callable[..., Path]) -> Path:
    return write_split(REPO, "default", "test", text=PASSAGES)


def taught(model: Any, tokenizer: Any) -> Any:
    """A model that knows some of the passages: some last words are the likeliest ones."""
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for text in PASSAGES[:2] * 12:
        ids = torch.tensor([tokenizer(text)["input_ids"][:32]])
        model(ids, labels=ids).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    return model


def test_equals_lm_eval(model: Any, tokenizer: Any, mirror: Path, tmp_path: Path):
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    (tmp_path / "data.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in PASSAGES))
    (tmp_path / "lambada.yaml").write_text(
        f"""
task: tiny_lambada
dataset_path: json
dataset_kwargs: {{data_files: {{test: {tmp_path / "data.jsonl"}}}, cache_dir: {tmp_path / "cache"}}}
output_type: loglikelihood
test_split: test
doc_to_text: "{{{{text.split(' ')[:-1]|join(' ')}}}}"
doc_to_target: "{{{{' '+text.split(' ')[-1]}}}}"
metric_list:
  - {{metric: perplexity, aggregation: perplexity, higher_is_better: false}}
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.0}}
"""
    )
    model = taught(model, tokenizer)
    results = simple_evaluate(
        HFLM(pretrained=model, tokenizer=tokenizer, device="cpu", batch_size=2),
        tasks=["tiny_lambada"],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        bootstrap_iters=0,
    )["results"]["tiny_lambada"]
    found = LambadaLastWord().measure(model, tokenizer, mirror).metrics
    assert found["ppl"] == pytest.approx(results["perplexity,none"], rel=1e-6)
    assert 0 < found["accuracy"] == results["acc,none"] < 1


def test_does_not_depend_on_batch_size_and_items_reproduce_the_metrics(model: Any, tokenizer: Any, mirror: Path):
    one, many = (LambadaLastWord().measure(model, tokenizer, mirror, Run(batch=size)) for size in (1, 16))
    assert many.metrics == pytest.approx(one.metrics, rel=1e-6)
    assert one.metrics["ppl"] == pytest.approx(math.exp(sum(one.items["nll"]) / len(PASSAGES)), rel=1e-9)
    assert one.metrics["accuracy"] == sum(one.items["correct"]) / len(PASSAGES)


def test_passages_of_one_word_are_left_out_and_counted(model: Any, tokenizer: Any, write_split: Callable[..., Path]):
    mirror = write_split(REPO, "default", "test", text=[*PASSAGES, "", "cat"])
    found = LambadaLastWord().measure(model, tokenizer, mirror)
    assert (found.details["passages"], found.details["empty_documents"]) == (len(PASSAGES), 2)
    with pytest.raises(DataError, match="no passage has two words"):
        LambadaLastWord().measure(model, tokenizer, write_split(REPO, "default", "test", text=["cat"]))


def test_nan_is_refused(model: Any, tokenizer: Any, mirror: Path):
    with torch.no_grad():
        model.transformer.ln_f.weight[0] = math.nan
    with pytest.raises(DataError, match="log-likelihood of the last word of passage 0 is nan"):
        LambadaLastWord().measure(model, tokenizer, mirror)


def test_the_windows_of_the_papers_are_of_the_other_text(model: Any, tokenizer: Any, write_split: Callable[..., Path]):
    mirror = write_split("cimec/lambada", "plain_text", "test", text=PASSAGES)
    found = registry.load("lambada.window_ppl.v1").measure(model, tokenizer, mirror)
    means = [nll / tokens for nll, tokens in zip(found.items["nll"], found.items["tokens"], strict=True)]
    assert found.metrics == {"window_ppl": pytest.approx(math.exp(sum(means) / len(means)), rel=1e-9)}
