"""Perplexity over windows of a text: exp(sum of negative log-likelihoods / what they are shared by).

Jelinek et al., "Perplexity - a measure of the difficulty of speech recognition tasks", JASA 62 S1 (1977); the windows
are those of the transformers documentation, "Perplexity of fixed-length models". The fields of `TokenPerplexity` say
everything on which published numbers of one model and one data set differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from tasks.interface import ALONE, DataError, Divisible, Fact, Measurement, Metric, Run
from tasks.likelihood import Window, check_head, check_vocabulary, finite, score_windows, windows
from tasks.source import TextSource
from tasks.token_stream import Normaliser, TokenStream, apart, joined

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BY_TOKEN = Metric(name="ppl", unit="perplexity per token", higher_is_better=False)
BY_WORD = Metric(name="word_ppl", unit="perplexity per word", higher_is_better=False)
BY_BYTE = Metric(name="byte_ppl", unit="perplexity per byte", higher_is_better=False)
BY_WINDOW = Metric(name="window_ppl", unit="perplexity per token, mean over windows", higher_is_better=False)


class TokenPerplexity(Divisible):
    """Perplexity of a text in windows.

    A subclass says `name` and `source`, and where they differ the fields below. Items are windows with `nll` (nats),
    `tokens` (those scored) and, where they are the normaliser, `words` or `bytes`.
    """

    metrics = (BY_TOKEN,)
    """One, that of `normaliser` and `average`."""
    source: TextSource
    join: ClassVar[str | None] = "\n\n"
    """What stands between two documents; None scores each of them apart, after one BOS or EOS token."""
    empty: ClassVar[Literal["skipped", "joined"]] = "skipped"
    """What becomes of documents without a letter; where documents are a file's lines, they belong to the text."""
    special_tokens: ClassVar[bool] = False
    """Add the tokens that the tokenizer puts around a text; GPT-2's has none."""
    context: ClassVar[int] = 1024
    """Tokens per window; a model with fewer positions gets windows as long as it has."""
    stride: ClassVar[int | None] = None
    """Tokens from one window's start to the next one's; None is the context. Shrinks in proportion to the context."""
    short_window: ClassVar[Literal["scored", "dropped"]] = "scored"
    """What becomes of the last window, where it is shorter than the others."""
    normaliser: ClassVar[Normaliser] = "token"
    """What the negative log-likelihoods are shared by. A word counts where its first letter is in a scored token."""
    average: ClassVar[Literal["tokens", "windows"]] = "tokens"
    """`windows`: exp(mean of the windows' means), as some papers do: a short window weighs as much as a full one."""
    limit_windows: ClassVar[int | None] = None
    """Score this many windows only, from the text's start."""

    def fingerprint(self, mirror: Path | None) -> str:
        return self.source.fingerprint(mirror)

    def check(self, mirror: Path | None) -> None:
        self.source.check(mirror)

    def describe(self) -> dict[str, Fact]:
        stride = self.stride or self.context
        unscored = "each window's first token has no context" if stride == self.context else "the first has none"
        return {
            **super().describe(),
            **self.source.describe(),
            "detokenised": False,
            "documents": "apart, each after a BOS or EOS token" if self.join is None else f"joined by {self.join!r}",
            "empty_documents": self.empty,
            "special_tokens": self.special_tokens,
            "context_tokens": self.context,
            "stride_tokens": stride,
            "scored": f"every token once; {unscored}",
            "short_last_window": self.short_window,
            "limit_windows": self.limit_windows,
            "normaliser": self.normaliser,
            "average": f"over {self.average}",
            "regime": "zero-shot",
        }

    def measure(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, mirror: Path | None, run: Run = ALONE
    ) -> Measurement:
        """Score all windows.

        Raises:
            DataError: fewer than two tokens, another model's tokenizer, or log-likelihoods that are not finite.
        """
        found = self.source.documents(mirror)
        documents = [text for text in found if text.strip() or self.empty == "joined"]
        stream = self._stream(documents, tokenizer)
        context = min(self.context, getattr(model.config, "max_position_embeddings", None) or self.context)
        stride = max(1, (self.stride or self.context) * context // self.context)
        spans, dropped = self._spans(stream, context, stride)
        check_vocabulary(self.name, model, tokenizer, int(stream.ids_N.max()))
        check_head(model, stream.ids_N)
        nll = score_windows(model, stream.ids_N, spans, run).nll
        items = [f"{span.first}:{span.end}" for span in spans]
        finite(self.name, nll, [f"tokens {item}" for item in items])
        weight = [int(stream.weight_N[span.first : span.end].sum()) for span in spans]
        columns: dict[str, Sequence[Any]] = {"item": items, "nll": nll, "tokens": [span.scored for span in spans]}
        return Measurement(
            metrics={self.metrics[0].name: self._perplexity(nll, weight)},
            items=columns | {f"{self.normaliser}s": weight},
            details={
                "context": context,
                "stride": stride,
                "windows": len(spans),
                "documents": len(documents),
                "empty_documents": len(found) - len(documents),
                "dropped_tokens": dropped,
            }
            | self._notes(stream, spans, context),
        )

    def _stream(self, documents: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> TokenStream:
        if not documents:
            raise DataError(f"{self.name}: the text has no document that is not empty")
        if self.join is None:
            return apart(documents, tokenizer, self.normaliser)
        return joined(self.join.join(documents), tokenizer, self.normaliser, special=self.special_tokens)

    def _spans(self, stream: TokenStream, context: int, stride: int) -> tuple[list[Window], int]:
        """The windows to score, and how many tokens at texts' ends are left out."""
        spans, dropped, begin = [], 0, 0
        for end in stream.ends:
            of_text = list(windows(end - begin, context, stride))
            if self.short_window == "dropped" and len(of_text) > 1 and of_text[-1].length < context:
                dropped += of_text.pop().length
            spans += [Window(begin + w.begin, begin + w.first, begin + w.end) for w in of_text]
            begin = end
        if not spans:
            raise DataError(f"{self.name}: the text has {len(stream.ids_N)} tokens; perplexity needs at least two")
        return spans[: self.limit_windows], dropped

    def _perplexity(self, nll: Sequence[float], weight: Sequence[int]) -> float:
        if self.average == "windows":
            return exp(math.fsum(n / w for n, w in zip(nll, weight, strict=True)) / len(nll))
        if not sum(weight):
            raise DataError(f"{self.name}: no {self.normaliser} begins in a scored token")
        return exp(math.fsum(nll) / sum(weight))

    def _notes(self, stream: TokenStream, spans: Sequence[Window], context: int) -> dict[str, str]:
        """What a reader would not expect of the number."""
        notes = []
        if context < self.context:
            notes.append(f"the model has {context} positions: windows of {context} tokens, not {self.context}")
        if self.join is not None and len(stream.ids_N) < context:
            notes.append(f"the text is shorter than the context: one window of {len(stream.ids_N)} tokens")
        return {"note": "; ".join(notes)} if notes else {}


def exp(nats: float) -> float:
    """e^nats, infinite where a float has no room for it."""
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf
