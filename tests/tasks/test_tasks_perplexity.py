from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from tasks import perplexity
from tasks.interface import DataError
from tasks.perplexity import TokenPerplexity, windows


class Texts:
    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)

    def documents(self, mirror: Any) -> list[str]:
        return self.texts

    def fingerprint(self, mirror: Any) -> str:
        return "sha256:0"

    def check(self, mirror: Any) -> None:
        pass


def protocol(texts: list[str], **fields: Any) -> TokenPerplexity:
    return type("Tiny", (TokenPerplexity,), {"name": "tiny.token_ppl.v1", "source": Texts(*texts), **fields})()


def token_nll(model: Any, ids: list[int]) -> np.ndarray:
    """-log p of each token but the first, in float64 from the model's own logits; shape (tokens - 1,)."""
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double().numpy()
    return -np.take_along_axis(log_softmax(logits[:-1], axis=-1), np.array(ids[1:])[:, None], axis=1)[:, 0]


@pytest.mark.parametrize("length", [2, 9, 10, 11, 31, 32, 100])
@pytest.mark.parametrize("stride", [1, 3, 9])
def test_overlapping_windows_score_every_token_but_the_first_once(length: int, stride: int):
    spans = list(windows(length, 10, stride))
    assert [t for span in spans for t in range(span.first, span.end)] == list(range(1, length))
    assert all(span.begin < span.first and span.end - span.begin <= 10 for span in spans)


def test_disjoint_windows_do_not_score_their_first_token():
    spans = list(windows(21, 10, 10))
    assert [(span.begin, span.first, span.end) for span in spans] == [(0, 1, 10), (10, 11, 20)]


@pytest.mark.parametrize("stride", [5, 16])
def test_equals_a_sum_by_hand(model: Any, tokenizer: Any, documents: list[str], stride: int):
    found = protocol(documents, context=16, stride=stride).measure(model, tokenizer, None)
    ids = tokenizer("\n\n".join(documents))["input_ids"]
    nll, done = [], 0
    for begin in range(0, len(ids), stride):
        end = min(begin + 16, len(ids))
        nll += list(token_nll(model, ids[begin:end]))[-(end - done) :] if end - begin > 1 else []
        done = end
        if end == len(ids):
            break
    assert found.metrics["ppl"] == pytest.approx(math.exp(sum(nll) / len(nll)), rel=1e-5)
    assert sum(found.items["tokens"]) == len(nll)
    assert sum(found.items["nll"]) == pytest.approx(sum(nll), rel=1e-5)


def test_does_not_depend_on_batch_size(model: Any, tokenizer: Any, documents: list[str]):
    values = [
        protocol(documents, context=16, stride=7, batch_windows=size).measure(model, tokenizer, None)
        for size in (1, 3, 64)
    ]
    for other in values[1:]:
        assert other.metrics["ppl"] == pytest.approx(values[0].metrics["ppl"], rel=1e-6)
        np.testing.assert_allclose(other.items["nll"], values[0].items["nll"], rtol=1e-6)


def test_context_is_limited_by_the_model_and_stride_keeps_its_share(model: Any, tokenizer: Any, documents: list[str]):
    found = protocol(documents, context=1024, stride=512).measure(model, tokenizer, None)
    assert (found.details["context"], found.details["stride"]) == (32, 16)


def test_limit_scores_the_first_windows(model: Any, tokenizer: Any, documents: list[str]):
    full = protocol(documents, context=16, stride=16).measure(model, tokenizer, None)
    part = protocol(documents, context=16, stride=16, limit_windows=3).measure(model, tokenizer, None)
    assert part.details["windows"] == 3
    np.testing.assert_allclose(part.items["nll"], full.items["nll"][:3], rtol=1e-6)


def test_logits_of_few_positions_exist_at_once(
    model: Any, tokenizer: Any, documents: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(perplexity, "HEAD_POSITIONS", 11)
    expected = protocol(documents, context=32, stride=16).measure(model, tokenizer, None)
    seen: list[int] = []
    model.lm_head.register_forward_hook(lambda module, args, out: seen.append(out.numel() // out.shape[-1]))
    found = protocol(documents, context=32, stride=16).measure(model, tokenizer, None)
    assert max(seen) == 11
    assert found.metrics == expected.metrics


def test_too_short_a_text_is_refused(model: Any, tokenizer: Any):
    with pytest.raises(DataError, match=r"tiny.token_ppl.v1: the text has 1 tokens"):
        protocol(["a"]).measure(model, tokenizer, None)


def test_two_tokens_are_enough(model: Any, tokenizer: Any):
    ids = tokenizer("az")["input_ids"]
    assert len(ids) == 2
    found = protocol(["az"]).measure(model, tokenizer, None)
    assert found.metrics["ppl"] == pytest.approx(math.exp(token_nll(model, ids)[0]), rel=1e-5)


def test_nan_logits_are_refused(model: Any, tokenizer: Any, documents: list[str]):
    with torch.no_grad():
        model.transformer.ln_f.weight[0] = math.nan
    with pytest.raises(DataError, match=r"log-likelihood of tokens 1:32 is nan"):
        protocol(documents).measure(model, tokenizer, None)


def test_a_model_that_changes_its_logits_is_refused(model: Any, tokenizer: Any, documents: list[str]):
    plain = model.forward

    def scaled(**arguments: Any) -> Any:
        out = plain(**arguments)
        out.logits = out.logits / 2
        return out

    model.forward = scaled
    with pytest.raises(DataError, match="not its output matrix times"):
        protocol(documents).measure(model, tokenizer, None)
