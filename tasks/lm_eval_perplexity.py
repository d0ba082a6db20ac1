"""Word and byte perplexity and bits per byte exactly as lm-eval's `wikitext` task, through lm-eval's own API.

Gao et al., "The Language Model Evaluation Harness", 2021 (github.com/EleutherAI/lm-evaluation-harness), version 0.4,
task `wikitext` version 2: each page is detokenised and scored in disjoint windows after one EOS token; the normaliser
counts the words and bytes of the page *before* it was detokenised.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from tasks.interface import Measurement, Metric, Protocol
from tasks.source import TextSource

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class LmEvalPerplexity(Protocol):
    """lm-eval's `wikitext` over any pages: a subclass says `name` and `source`, whose documents are the pages.

    Items are pages with `nll` (nats), `words` and `bytes`.
    """

    metrics = (
        Metric(name="word_ppl", unit="perplexity per word", higher_is_better=False),
        Metric(name="byte_ppl", unit="perplexity per byte", higher_is_better=False),
        Metric(name="bits_per_byte", unit="bits per byte", higher_is_better=False),
    )
    source: ClassVar[TextSource]
    context: ClassVar[int] = 1024
    """Longest window in tokens; a model with fewer positions gets windows as long as it has."""
    batch_windows: ClassVar[int] = 8

    def fingerprint(self, mirror: Path | None) -> str:
        return self.source.fingerprint(mirror)

    def check(self, mirror: Path | None) -> None:
        self.source.check(mirror)

    def measure(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, mirror: Path | None) -> Measurement:
        raise NotImplementedError
