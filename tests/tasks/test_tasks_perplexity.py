from __future__ import annotations

import copy
import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from tasks.interface import DataError, Run
from tasks.likelihood import windows
from tasks.perplexity import BY_BYTE, BY_WINDOW, BY_WORD, TokenPerplexity


class Texts:
    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)

    def documents(self, mirror: Any) -> list[str]:
        return self.texts

    def fingerprint(self, mirror: Any) -> str:
        return "sha256:0"

    def check(self, mirror: Any) -> None:
        pass

    def describe(self) -> dict[str, str]:
        return {"data": "texts of a test"}


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
    measured = protocol(documents, context=16, stride=7)
    values = [measured.measure(model, tokenizer, None, Run(batch=size)) for size in (1, 4, 16)]
    for other in values[1:]:
        assert other.metrics["ppl"] == pytest.approx(values[0].metrics["ppl"], rel=1e-6)
        np.testing.assert_allclose(other.items["nll"], values[0].items["nll"], rtol=1e-6)


@pytest.mark.parametrize("world", [2, 3, 50])
def test_workers_shares_add_up_to_the_whole(model: Any, tokenizer: Any, documents: list[str], world: int):
    measured = protocol(documents, context=16, stride=7)
    whole = measured.measure(model, tokenizer, None)
    shares: list[list[list[float]]] = []
    for rank in range(world):
        share: list[list[float]] = []
        run = Run(rank=rank, world=world, combine=lambda values, share=share: share.append(values) or values)
        measured.measure(model, tokenizer, None, run)
        shares.append(share)
    nll_RN = np.array([share[0] for share in shares])
    np.testing.assert_allclose(nll_RN.sum(0), whole.items["nll"], rtol=1e-6)
    assert ((nll_RN > 0).sum(0) == 1).all()


def test_progress_counts_up_to_the_tokens_read(model: Any, tokenizer: Any, documents: list[str]):
    seen: list[tuple[int, int]] = []
    run = Run(batch=2, progress=lambda done, total: seen.append((done, total)))
    protocol(documents, context=16, stride=8).measure(model, tokenizer, None, run)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1][0] == seen[-1][1] == seen[0][1]


def test_context_is_limited_by_the_model_and_stride_keeps_its_share(model: Any, tokenizer: Any, documents: list[str]):
    found = protocol(documents, context=1024, stride=512).measure(model, tokenizer, None)
    assert (found.details["context"], found.details["stride"]) == (32, 16)


def test_limit_scores_the_first_windows(model: Any, tokenizer: Any, documents: list[str]):
    full = protocol(documents, context=16, stride=16).measure(model, tokenizer, None)
    part = protocol(documents, context=16, stride=16, limit_windows=3).measure(model, tokenizer, None)
    assert part.details["windows"] == 3
    np.testing.assert_allclose(part.items["nll"], full.items["nll"][:3], rtol=1e-6)


def test_the_mean_over_windows_weighs_a_short_window_as_a_full_one(model: Any, tokenizer: Any, documents: list[str]):
    ids = tokenizer("\n\n".join(documents))["input_ids"]
    means = [token_nll(model, ids[begin : begin + 16]).mean() for begin in range(0, len(ids) - 1, 16)]
    found = protocol(documents, context=16, stride=16, average="windows", metrics=(BY_WINDOW,))
    assert len(ids) % 16 not in (0, 1)
    assert found.measure(model, tokenizer, None).metrics == {
        "window_ppl": pytest.approx(math.exp(sum(means) / len(means)), rel=1e-5)
    }


def test_a_short_last_window_is_dropped_where_the_protocol_says_so(model: Any, tokenizer: Any, documents: list[str]):
    ids = tokenizer("\n\n".join(documents))["input_ids"]
    found = protocol(documents, context=16, stride=16, short_window="dropped").measure(model, tokenizer, None)
    assert found.items["tokens"] == [15] * (len(ids) // 16)
    assert found.details["dropped_tokens"] == len(ids) % 16


@pytest.mark.parametrize(("normaliser", "metric"), [("word", BY_WORD), ("byte", BY_BYTE)])
def test_words_and_bytes_of_the_scored_text_are_counted(model: Any, tokenizer: Any, normaliser: str, metric: Any):
    text = "the dog É sat   under\na small hill ."
    fields = {"normaliser": normaliser, "metrics": (metric,), "context": 8, "stride": 4}
    found = protocol([text], **fields).measure(model, tokenizer, None)
    first = tokenizer(text, return_offsets_mapping=True)["offset_mapping"][0][1]
    scored = text[first:]
    count = len(scored.encode()) if normaliser == "byte" else len(text.split()) - 1
    assert sum(found.items[f"{normaliser}s"]) == count
    assert found.metrics[metric.name] == pytest.approx(math.exp(sum(found.items["nll"]) / count), rel=1e-6)


def test_documents_apart_begin_after_a_bos_token_and_share_no_context(model: Any, tokenizer: Any, documents: list[str]):
    found = protocol(documents[:3], join=None, context=32).measure(model, tokenizer, None)
    begun = [[tokenizer.bos_token_id, *tokenizer(text)["input_ids"]] for text in documents[:3]]
    nll = [token_nll(model, ids[begin : begin + 32]).sum() for ids in begun for begin in range(0, len(ids) - 1, 32)]
    np.testing.assert_allclose(found.items["nll"], nll, rtol=1e-5)


def test_empty_documents_are_skipped_and_counted_or_belong_to_the_text(model: Any, tokenizer: Any):
    texts = ["a cat", "", " \n", "sat on"]
    skipped = protocol(texts).measure(model, tokenizer, None)
    joined = protocol(texts, empty="joined").measure(model, tokenizer, None)
    assert (skipped.details["documents"], skipped.details["empty_documents"]) == (2, 2)
    assert skipped.metrics == protocol(["a cat", "sat on"]).measure(model, tokenizer, None).metrics
    assert joined.metrics == protocol(["\n\n".join(texts)]).measure(model, tokenizer, None).metrics
    with pytest.raises(DataError, match="no document that is not empty"):
        protocol(["", " "]).measure(model, tokenizer, None)


def test_a_text_shorter_than_the_context_is_one_short_window_and_says_so(model: Any, tokenizer: Any):
    found = protocol(["the cat sat"], context=32).measure(model, tokenizer, None)
    assert found.details["windows"] == 1
    assert re.search(r"shorter than the context: one window of \d+ tokens", found.details["note"])
    assert "note" not in protocol(["the cat sat " * 20], context=32).measure(model, tokenizer, None).details


def test_fewer_positions_than_the_context_are_said(model: Any, tokenizer: Any, documents: list[str]):
    note = protocol(documents, context=1024).measure(model, tokenizer, None).details["note"]
    assert note == "the model has 32 positions: windows of 32 tokens, not 1024"


def test_special_tokens_are_those_of_the_tokenizer(model: Any, tokenizer: Any, documents: list[str]):
    from tokenizers.processors import TemplateProcessing

    beginning = copy.deepcopy(tokenizer)
    token = beginning.convert_ids_to_tokens(beginning.bos_token_id)
    beginning.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{token} $A", special_tokens=[(token, beginning.bos_token_id)]
    )
    plain, special = (
        protocol(documents, special_tokens=each, limit_windows=1).measure(model, beginning, None)
        for each in (False, True)
    )
    assert plain.metrics != special.metrics
    ids = [tokenizer.bos_token_id, *tokenizer("\n\n".join(documents))["input_ids"]][:32]
    assert special.items["nll"] == [pytest.approx(token_nll(model, ids).sum(), rel=1e-5)]


def test_another_models_tokenizer_is_refused(tokenizer: Any, documents: list[str]):
    from transformers import GPT2Config, GPT2LMHeadModel

    smaller = GPT2LMHeadModel(
        GPT2Config(vocab_size=280, n_embd=16, n_layer=1, n_head=2, n_positions=32, bos_token_id=0, eos_token_id=0)
    ).eval()
    with pytest.raises(DataError, match="the tokenizer has 290 entries, the model 280: it is another model's"):
        protocol(documents).measure(smaller, tokenizer, None)


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
