"""The shipped perplexity protocols: what each says of itself, and that it does not change under its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks import registry
from tasks.interface import Protocol
from tasks.perplexity import TokenPerplexity

FROZEN = Path(__file__).with_name("protocols.json")
PROTOCOLS = [name for name in registry.names() if "_ppl." in name or ".lm_eval." in name or name.startswith("lambada.")]
FACTS = {"name", "metrics", "data", "detokenised", "documents", "scored", "normaliser", "average", "regime"}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_is_what_it_was_under_its_name(name: str):
    """A change here changes numbers: give the protocol its next version, and this file its facts."""
    found = registry.load(name).describe()
    assert json.loads(json.dumps(found)) == found
    assert found == json.loads(FROZEN.read_text())[name]


def test_every_protocol_says_all_that_numbers_differ_by():
    facts = json.loads(FROZEN.read_text())
    assert set(facts) == set(PROTOCOLS)
    assert all(facts[name].keys() >= FACTS for name in facts)
    told = [json.dumps({k: v for k, v in each.items() if k != "name"}, sort_keys=True) for each in facts.values()]
    assert len(set(told)) == len(told), "two protocols differ in nothing but their names"


@pytest.mark.parametrize("name", PROTOCOLS)
def test_data_of_the_hub_is_pinned_or_said_not_to_be(name: str):
    task = registry.load(name)
    revision = task.describe().get("revision", "")
    if revision is None:
        assert task.fingerprint(None).endswith("@unknown")
    elif revision:
        split = getattr(task, "source").split  # noqa: B009
        pinned = len(revision) == 40 and int(revision, 16)
        assert pinned or task.source.sha256, f"{split}: neither a commit nor a digest"


def test_the_computation_gives_what_it_gave(model: Any, tokenizer: Any, documents: list[str]):
    """Perplexities of a fixed model on a fixed text: if they move, every protocol's version does."""

    class Source:
        def documents(self, mirror: Any) -> list[str]:
            return documents

        def describe(self) -> dict[str, str]:
            return {}

    def value(**fields: Any) -> float:
        made = type("Fixed", (TokenPerplexity,), {"name": "fixed.token_ppl.v1", "source": Source(), **fields})()
        return float(made.measure(model, tokenizer, None).metrics["ppl"])

    found = [value(context=16), value(context=32, stride=16), value(context=32, average="windows"), value(join=None)]
    np.testing.assert_allclose(found, [575.113094, 590.565965, 590.598083, 589.576491], rtol=1e-4)


@pytest.mark.mirror
@pytest.mark.parametrize(
    ("name", "windows", "dropped"),
    [
        ("wikitext2.token_ppl.v2", 561, 0),
        ("wikitext2_blocks.token_ppl.v2", 281, 0),
        ("wikitext2_2048.token_ppl.v1", 140, 924),
    ],
)
def test_published_windows_on_wikitext2(mirror: Path, name: str, windows: int, dropped: int):
    """287,644 GPT-2 tokens: 281 blocks of 1024 tokens; SVD-LLM's 140 blocks of 2048, and 924 tokens left out."""
    from transformers import AutoTokenizer

    from tasks.hub import model_directory

    tokenizer = AutoTokenizer.from_pretrained(model_directory("openai-community/gpt2", None, mirror, weights=False))
    task = registry.load(name)
    assert isinstance(task, TokenPerplexity)
    stream = task._stream(task.source.documents(mirror), tokenizer)
    spans, left = task._spans(stream, task.context, task.stride or task.context)
    assert (len(spans), left) == (windows, dropped)


def test_all_of_them_measure_a_model_as_it_is():
    assert all(isinstance(registry.load(name), Protocol) for name in PROTOCOLS)
