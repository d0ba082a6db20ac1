"""LAMBADA (Paperno et al., arXiv 1606.06031): passages whose last word follows from all of them, not from its sentence.

Two texts are called so: the original (`cimec/lambada`: lower case, tokenised) and the one that OpenAI prepared for
GPT-2 (`EleutherAI/lambada_openai`: as printed). Each has 5,153 test passages.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.hub import HubSplit
from tasks.interface import ALONE, DataError, Divisible, Fact, Measurement, Metric, Run
from tasks.likelihood import Window, check_head, check_vocabulary, finite, score_windows
from tasks.perplexity import BY_WINDOW, TokenPerplexity, exp
from tasks.source import Rows, TextSource

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class LambadaWindows(TokenPerplexity):
    """Krony-PT's LAMBADA: the original test text joined by two newlines, blocks of 1024, mean over windows."""

    name = "lambada.window_ppl.v1"
    metrics = (BY_WINDOW,)
    average = "windows"
    special_tokens = True
    source = Rows(split=HubSplit(repo="cimec/lambada", config="plain_text", split="test", revision=None))


class LambadaLastWord(Divisible):
    """Perplexity and accuracy of the last word, as lm-eval's `lambada_openai`: gpt2 has 40.06 and 0.3256.

    A passage is cut at its last blank. ppl = exp(-mean over passages of log p(last word | passage)); accuracy counts
    the passages in which every token of the word is the likeliest one. Items are passages with `nll` (nats), `words`
    (1) and `correct`.
    """

    name = "lambada.last_word.v1"
    metrics = (
        Metric(name="ppl", unit="perplexity per last word", higher_is_better=False),
        Metric(name="accuracy", unit="fraction", higher_is_better=True),
    )
    source: TextSource = Rows(
        split=HubSplit(
            repo="EleutherAI/lambada_openai",
            config="default",
            split="test",
            revision="900124bf3b8235c6daf21033af9948b3f07346c4",
        )
    )

    def fingerprint(self, mirror: Path | None) -> str:
        return self.source.fingerprint(mirror)

    def check(self, mirror: Path | None) -> None:
        self.source.check(mirror)

    def describe(self) -> dict[str, Fact]:
        return {
            **super().describe(),
            **self.source.describe(),
            "detokenised": False,
            "documents": "apart",
            "special_tokens": True,
            "scored": "the last word with the blank before it",
            "normaliser": "word",
            "average": "over passages",
            "regime": "zero-shot",
        }

    def measure(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, mirror: Path | None, run: Run = ALONE
    ) -> Measurement:
        """Score the last words; `DataError` as in `TokenPerplexity.measure`, or when no passage has two words."""
        import numpy as np

        found = self.source.documents(mirror)
        passages = [text for text in found if text.rpartition(" ")[0].strip()]
        if not passages:
            raise DataError(f"{self.name}: no passage has two words")
        ids, spans = _last_words(passages, tokenizer, getattr(model.config, "max_position_embeddings", None))
        ids_N = np.asarray(ids, dtype=np.int64)
        check_vocabulary(self.name, model, tokenizer, max(ids))
        check_head(model, ids_N)
        scores = score_windows(model, ids_N, spans, run, greedy=True)
        items = [str(number) for number in range(len(passages))]
        finite(self.name, scores.nll, [f"the last word of passage {item}" for item in items])
        correct = [float(hit) for hit in scores.greedy]
        return Measurement(
            metrics={"ppl": exp(math.fsum(scores.nll) / len(passages)), "accuracy": sum(correct) / len(passages)},
            items={"item": items, "nll": scores.nll, "words": [1] * len(passages), "correct": correct},
            details={"passages": len(passages), "empty_documents": len(found) - len(passages)},
        )


def _last_words(
    passages: list[str], tokenizer: PreTrainedTokenizerBase, positions: int | None
) -> tuple[list[int], list[Window]]:
    """Ids of all passages, and of each the window that its last word is scored in: its end, where it is too long."""
    ids: list[int] = []
    spans = []
    for text in passages:
        whole, before = (
            tokenizer(part, verbose=False)["input_ids"] for part in (text, text.rpartition(" ")[0].rstrip())
        )
        end = len(ids) + len(whole)
        begin = max(len(ids), end - positions - 1) if positions else len(ids)
        spans.append(Window(begin, max(begin + 1, min(len(ids) + len(before), end - 1)), end))
        ids += whole
    return ids, spans
