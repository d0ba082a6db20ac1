from __future__ import annotations

import copy
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from tasks.interface import DataError
from tasks.lm_eval_perplexity import LmEvalPerplexity

PAGES = [
    " = Cat = \n \n The cat @-@ dog sat ( quickly ) on 1 @,@ 000 mats . \n \n = = Hill = = \n \n A red hill \n ",
    " = Dog = \n \n " + "the small dog 's mat , the red one , ran under a hill ; " * 4 + "\n",
    " = É = \n",
]


class Source:
    def __init__(self, pages: list[str]) -> None:
        self.pages = pages

    def documents(self, mirror: Any) -> list[str]:
        return self.pages

    def fingerprint(self, mirror: Any) -> str:
        return "sha256:0"

    def check(self, mirror: Any) -> None:
        pass

    def describe(self) -> dict[str, str]:
        return {"data": "pages of a test"}


def protocol(pages: list[str], **fields: Any) -> LmEvalPerplexity:
    return type("Tiny", (LmEvalPerplexity,), {"name": "tiny.lm_eval.v1", "source": Source(pages), **fields})()


def page_nll(model: Any, tokenizer: Any, text: str, context: int) -> float:
    """Disjoint windows after one EOS; the last window is filled up with earlier tokens as context."""
    ids = [tokenizer.eos_token_id, *tokenizer(text)["input_ids"]]
    total, done = 0.0, 0
    while done < len(ids) - 1:
        end = min(done + context, len(ids) - 1)
        begin = max(0, end - context)
        with torch.no_grad():
            logits = model(torch.tensor([ids[begin:end]])).logits[0].double().numpy()
        for target in range(done + 1, end + 1):
            total -= log_softmax(logits[target - 1 - begin])[ids[target]]
        done = end
    return total


def test_equals_a_computation_by_hand(model: Any, tokenizer: Any):
    from lm_eval.tasks.wikitext.preprocess_wikitext import wikitext_detokenizer

    found = protocol(PAGES).measure(model, tokenizer, None)
    nll = [page_nll(model, tokenizer, wikitext_detokenizer({"page": page}), 32) for page in PAGES]
    words = [len(re.split(r"\s+", page)) for page in PAGES]
    sizes = [len(page.encode()) for page in PAGES]
    np.testing.assert_allclose(found.items["nll"], nll, rtol=1e-5)
    assert found.items["words"] == words
    assert found.items["bytes"] == sizes
    assert found.metrics["word_ppl"] == pytest.approx(math.exp(sum(nll) / sum(words)), rel=1e-4)
    assert found.metrics["byte_ppl"] == pytest.approx(math.exp(sum(nll) / sum(sizes)), rel=1e-5)
    assert found.metrics["bits_per_byte"] == pytest.approx(sum(nll) / sum(sizes) / math.log(2), rel=1e-5)


def test_equals_lm_evals_own_task(model: Any, tokenizer: Any, tmp_path: Path):
    """lm-eval's wikitext.yaml as it is shipped, with only its data set replaced."""
    import lm_eval.tasks.wikitext.preprocess_wikitext as shipped
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    (tmp_path / "pages.json").write_text("\n".join(json.dumps({"page": page}) for page in PAGES))
    (tmp_path / "tiny.yaml").write_text(
        f"include: {Path(shipped.__file__).with_name('wikitext.yaml')}\n"
        "task: tiny_wikitext\ndataset_path: json\ndataset_name: null\n"
        "training_split: null\nvalidation_split: null\n"
        f"dataset_kwargs:\n  data_files:\n    test: {tmp_path / 'pages.json'}\n"
        f"  cache_dir: {tmp_path / 'cache'}\n"
    )
    results = simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer, device="cpu", batch_size=1),
        tasks=["tiny_wikitext"],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        bootstrap_iters=0,
    )["results"]["tiny_wikitext"]
    found = protocol(PAGES).measure(model, tokenizer, None).metrics
    assert found["word_ppl"] == pytest.approx(results["word_perplexity,none"], rel=1e-6)
    assert found["byte_ppl"] == pytest.approx(results["byte_perplexity,none"], rel=1e-6)
    assert found["bits_per_byte"] == pytest.approx(results["bits_per_byte,none"], rel=1e-6)


def test_is_quiet_and_does_not_depend_on_batch_size(
    model: Any, tokenizer: Any, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    limited = copy.deepcopy(tokenizer)
    limited.model_max_length = 32
    one = protocol(PAGES, batch_windows=1).measure(model, limited, None)
    many = protocol(PAGES, batch_windows=16).measure(model, tokenizer, None)
    np.testing.assert_allclose(one.items["nll"], many.items["nll"], rtol=1e-6)
    out, err = capfd.readouterr()
    assert (out, err, caplog.text) == ("", "", "")


def test_leaves_the_global_generators_alone(model: Any, tokenizer: Any):
    torch.manual_seed(5)
    np.random.seed(5)
    expected = (torch.rand(1).item(), np.random.random())
    torch.manual_seed(5)
    np.random.seed(5)
    protocol(PAGES[:1]).measure(model, tokenizer, None)
    assert (torch.rand(1).item(), np.random.random()) == expected


def test_leaves_the_tokenizer_alone(model: Any, tokenizer: Any):
    bare = copy.deepcopy(tokenizer)
    bare.pad_token = None
    protocol(PAGES[:1]).measure(model, bare, None)
    assert bare.pad_token is None


def test_no_pages_and_nan_are_refused(model: Any, tokenizer: Any):
    with pytest.raises(DataError, match="has no pages"):
        protocol([]).measure(model, tokenizer, None)
    with torch.no_grad():
        model.transformer.ln_f.weight[0] = math.nan
    with pytest.raises(DataError, match="log-likelihood of page 0 is nan"):
        protocol(PAGES).measure(model, tokenizer, None)
