"""Token perplexity over windows of a text: exp(sum of negative log-likelihoods / number of scored tokens).

Jelinek et al., "Perplexity - a measure of the difficulty of speech recognition tasks", JASA 62 S1 (1977); the windows
are those of the transformers documentation, "Perplexity of fixed-length models".
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from tasks.interface import DataError, Measurement, Metric, Protocol
from tasks.source import TextSource

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

HEAD_POSITIONS = 512
"""Positions whose logits exist at once: memory is HEAD_POSITIONS x vocabulary, whatever batch and context are."""


@dataclass(frozen=True)
class Window:
    """Tokens `begin:end` are read; the negative log-likelihoods of tokens `first:end` are summed."""

    begin: int
    first: int
    end: int


class TokenPerplexity(Protocol):
    """Perplexity per token of the documents joined to one text.

    A subclass says `name` and `source`, and where they differ the fields below. Items are windows with `nll` (nats)
    and `tokens` (those scored).
    """

    metrics = (Metric(name="ppl", unit="perplexity per token", higher_is_better=False),)
    source: ClassVar[TextSource]
    join: ClassVar[str] = "\n\n"
    """What stands between two documents."""
    context: ClassVar[int] = 1024
    """Tokens per window; a model with fewer positions gets windows as long as it has."""
    stride: ClassVar[int] = 1024
    """Tokens from one window's start to the next one's; shrinks in proportion to the context."""
    limit_windows: ClassVar[int | None] = None
    """Score this many windows only, from the text's start."""
    batch_windows: ClassVar[int] = 8
    """Windows per forward pass: execution, the result is the same up to rounding."""

    def fingerprint(self, mirror: Path | None) -> str:
        return self.source.fingerprint(mirror)

    def check(self, mirror: Path | None) -> None:
        self.source.check(mirror)

    def measure(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, mirror: Path | None) -> Measurement:
        """Sum the negative log-likelihoods over all windows; `DataError` for too short a text or non-finite logits."""
        import numpy as np

        text = self.join.join(self.source.documents(mirror))
        ids = np.asarray(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], dtype=np.int64)
        if len(ids) < 2:
            raise DataError(f"{self.name}: the text has {len(ids)} tokens; perplexity needs at least two")
        context = min(self.context, getattr(model.config, "max_position_embeddings", None) or self.context)
        stride = max(1, self.stride * context // self.context)
        spans = list(windows(len(ids), context, stride))[: self.limit_windows]
        _check_head(model, ids)
        nll = window_nll(model, ids, spans, self.batch_windows)
        for span, value in zip(spans, nll, strict=True):
            if not math.isfinite(value):
                raise DataError(f"{self.name}: the model's log-likelihood of tokens {span.first}:{span.end} is {value}")
        tokens = [span.end - span.first for span in spans]
        return Measurement(
            metrics={"ppl": math.exp(math.fsum(nll) / sum(tokens))},
            items={"item": [f"{span.first}:{span.end}" for span in spans], "nll": nll, "tokens": tokens},
            details={"context": context, "stride": stride, "windows": len(spans)},
        )


def windows(length: int, context: int, stride: int) -> Iterator[Window]:
    """Windows over `length` tokens: each token but the text's first is scored at most once.

    With stride = context, the first token of each window has no context and is not scored; with less, the windows
    overlap and every token but the text's first is scored.
    """
    done = 0
    for begin in range(0, length, stride):
        end = min(begin + context, length)
        first = max(done, begin + 1)
        if first < end:
            yield Window(begin, first, end)
        done = end
        if end == length:
            return


def window_nll(model: PreTrainedModel, ids: np.ndarray, spans: list[Window], batch_windows: int) -> list[float]:
    """Negative log-likelihood (nats) of each window's scored tokens.

    Windows of one length share a forward pass, so nothing is padded. The body of the model runs once per batch, the
    output matrix only at scored positions, `HEAD_POSITIONS` of them at a time.
    """
    import torch

    nll: list[float] = []
    with torch.inference_mode():
        for _, group in groupby(spans, key=lambda span: span.end - span.begin):
            same = list(group)
            for start in range(0, len(same), batch_windows):
                nll += _batch_nll(model, ids, same[start : start + batch_windows])
    return nll


def _batch_nll(model: PreTrainedModel, ids: np.ndarray, spans: list[Window]) -> list[float]:
    """Legend: B windows, T tokens of a window, D hidden width, S scored positions of the batch, V vocabulary."""
    import numpy as np
    import torch

    ids_BT = torch.from_numpy(np.stack([ids[span.begin : span.end] for span in spans])).to(model.device)
    hidden_BTD = model.base_model(input_ids=ids_BT, use_cache=False).last_hidden_state
    scored_BT = torch.zeros_like(ids_BT, dtype=torch.bool)
    for row, span in enumerate(spans):
        scored_BT[row, span.first - span.begin :] = True
    hidden_SD = hidden_BTD[:, :-1][scored_BT[:, 1:]]
    nll_S = _token_nll(model, hidden_SD, ids_BT[scored_BT])
    sizes = [span.end - span.first for span in spans]
    return [float(part.sum()) for part in torch.split(nll_S, sizes)]


def _token_nll(model: PreTrainedModel, hidden_SD: torch.Tensor, target_S: torch.Tensor) -> torch.Tensor:
    """-log softmax(head(hidden))[target] in float64, shape (S,)."""
    import torch
    from torch.nn.functional import cross_entropy

    head = model.get_output_embeddings()
    starts = range(0, len(target_S), HEAD_POSITIONS)
    parts = [(hidden_SD[i : i + HEAD_POSITIONS], target_S[i : i + HEAD_POSITIONS]) for i in starts]
    return torch.cat([cross_entropy(head(h).float(), t, reduction="none").double() for h, t in parts])


def _check_head(model: PreTrainedModel, ids: np.ndarray) -> None:
    """Refuse a model that does more to its logits than its output matrix does (scales, soft caps)."""
    import torch

    ids_BT = torch.from_numpy(ids[None, :8].copy()).to(model.device)
    with torch.inference_mode():
        hidden_BTD = model.base_model(input_ids=ids_BT, use_cache=False).last_hidden_state
        ours = model.get_output_embeddings()(hidden_BTD)
        theirs = model(input_ids=ids_BT, use_cache=False).logits
    if not torch.allclose(ours, theirs, rtol=1e-2, atol=1e-3, equal_nan=True):
        raise DataError(f"{type(model).__name__}: its logits are not its output matrix times its last hidden state")
