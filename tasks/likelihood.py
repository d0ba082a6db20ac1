"""Negative log-likelihoods of tokens in windows of a text, without their (tokens x vocabulary) logits.

For a hidden state h, the rows w_v of the output matrix and a target t,

    nll = log sum_v exp(h.w_v) - h.w_t

The sum runs over blocks of the vocabulary that fit into a cache, with a running maximum (Milakov & Gimelshein, "Online
normalizer calculation for softmax", arXiv 1805.02867), so that logits are neither stored nor read back from memory. The
body of the model runs over whole windows: what a window shares with the one before it had another context there (and,
with absolute positions, other positions), so that nothing of it can be used again. Where a token is not scored, the
output matrix is left out.

Legend: B windows, T tokens of a window, D hidden width, S scored tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.interface import ALONE, DataError, Run

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH_TOKENS = {"cpu": 2**10, "cuda": 2**15}
"""Tokens per forward pass, by device, where no batch is asked for."""
BLOCK_ELEMENTS = {"cpu": 2**21, "cuda": 2**27}
"""Logits that exist at once, by device: 8 MB, so that they stay in the cache, and 512 MB."""
MOST_TOKENS = 2**10
"""Scored tokens of one block."""
WHOLE_TOKENS = {"cpu": 2**7, "cuda": 2**11}
"""Tokens whose whole logits exist at once, by device, where the output matrix is not a dense one."""


@dataclass(frozen=True)
class Window:
    """Tokens `begin:end` are read; tokens `first:end` are scored."""

    begin: int
    first: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.begin

    @property
    def scored(self) -> int:
        return self.end - self.first


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


@dataclass(frozen=True)
class Scores:
    """What was found in each window."""

    nll: list[float]
    """Nats, summed over the scored tokens in float64."""
    greedy: list[bool]
    """Whether every scored token is the likeliest one."""


def score_windows(
    model: PreTrainedModel,
    ids_N: NDArray[np.int64],
    spans: Sequence[Window],
    run: Run = ALONE,
    *,
    greedy: bool = False,
) -> Scores:
    """Score the windows of a text; windows of one length share a forward pass, so that nothing is padded.

    Of several workers each scores its share, and all get the whole. `greedy` is computed if asked for.
    """
    import torch

    nll, right = [0.0] * len(spans), [0.0] * len(spans)
    longest_first = sorted(range(len(spans)), key=lambda place: -spans[place].length)
    mine = longest_first[run.rank :: run.world]
    done, total = 0, sum(spans[place].length for place in mine)
    with torch.inference_mode():
        for batch in _batches(mine, spans, run.batch, _of_device(BATCH_TOKENS, model.device)):
            found = _score_batch(model, ids_N, [spans[place] for place in batch], greedy)
            for place, value, hit in zip(batch, found.nll, found.greedy, strict=True):
                nll[place], right[place] = value, float(hit)
            done += sum(spans[place].length for place in batch)
            run.progress(done, total)
    return Scores(run.combine(nll), [bool(hit) for hit in run.combine(right)])


def _of_device(sizes: Mapping[str, int], device: torch.device) -> int:
    return sizes["cpu" if device.type == "cpu" else "cuda"]


def _batches(places: Sequence[int], spans: Sequence[Window], size: int | None, most: int) -> Iterator[list[int]]:
    by_length: dict[int, list[int]] = defaultdict(list)
    for place in places:
        by_length[spans[place].length].append(place)
    for length, same in by_length.items():
        step = size or max(1, most // length)
        yield from (same[start : start + step] for start in range(0, len(same), step))


def _score_batch(model: PreTrainedModel, ids_N: NDArray[np.int64], spans: Sequence[Window], greedy: bool) -> Scores:
    import numpy as np
    import torch

    ids_BT = torch.from_numpy(np.stack([ids_N[span.begin : span.end] for span in spans])).to(model.device)
    hidden_BTD = model.base_model(input_ids=ids_BT[:, :-1], use_cache=False).last_hidden_state
    hidden_SD = torch.cat(
        [hidden_TD[span.first - span.begin - 1 :] for hidden_TD, span in zip(hidden_BTD, spans, strict=True)]
    )
    target_S = torch.cat([ids_T[span.first - span.begin :] for ids_T, span in zip(ids_BT, spans, strict=True)])
    nll_S, greedy_S = token_scores(model.get_output_embeddings(), hidden_SD, target_S, greedy=greedy)
    sizes = [span.scored for span in spans]
    return Scores(
        [float(part.sum()) for part in torch.split(nll_S.double(), sizes)],
        [bool(part.all()) for part in torch.split(greedy_S, sizes)],
    )


def token_scores(
    head: nn.Module, hidden_SD: Tensor, target_S: Tensor, *, greedy: bool = False
) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood (float32) of each target and, if asked, whether it is the likeliest token; both (S,)."""
    import torch

    dense = type(head) is torch.nn.Linear
    most = MOST_TOKENS if dense else _of_device(WHOLE_TOKENS, hidden_SD.device)
    parts = []
    for start in range(0, len(target_S), most):
        hidden, target = hidden_SD[start : start + most], target_S[start : start + most]
        blocks = _blocks(head.weight, head.bias, hidden) if dense else _whole(head, hidden)
        parts.append(_running_sums(blocks, target, greedy))
    nll, right = zip(*parts, strict=True)
    return torch.cat(nll), torch.cat(right)


def _blocks(weight_VD: Any, bias_V: Any, hidden_SD: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The logits (S, v) of one block of the vocabulary after the other in one buffer, and the first token of each."""
    import torch

    width = min(len(weight_VD), max(1, _of_device(BLOCK_ELEMENTS, hidden_SD.device) // len(hidden_SD)))
    buffer = hidden_SD.new_empty(len(hidden_SD) * width)
    for first in range(0, len(weight_VD), width):
        weight_vD = weight_VD[first : first + width]
        out_Sv = buffer[: len(hidden_SD) * len(weight_vD)].view(len(hidden_SD), len(weight_vD))
        if bias_V is None:
            torch.mm(hidden_SD, weight_vD.t(), out=out_Sv)
        else:
            torch.addmm(bias_V[first : first + width], hidden_SD, weight_vD.t(), out=out_Sv)
        yield first, out_Sv.float()


def _whole(head: nn.Module, hidden_SD: Tensor) -> Iterator[tuple[int, Tensor]]:
    """All logits at once, of a head that is not a dense matrix."""
    yield 0, head(hidden_SD).float()


def _running_sums(blocks: Iterator[tuple[int, Tensor]], target_S: Tensor, greedy: bool) -> tuple[Tensor, Tensor]:
    """As `token_scores`, from blocks of logits, which are overwritten."""
    import torch

    top_S = torch.full_like(target_S, -torch.inf, dtype=torch.float32)
    total_S, own_S = torch.zeros_like(top_S), torch.zeros_like(top_S)
    likeliest_S = torch.full_like(target_S, -1)
    for first, logits_Sv in blocks:
        width = logits_Sv.shape[1]
        place_S = (target_S - first).clamp(0, width - 1)
        here_S = (target_S >= first) & (target_S < first + width)
        own_S = torch.where(here_S, logits_Sv.gather(1, place_S[:, None])[:, 0], own_S)
        if greedy:
            largest_S, index_S = logits_Sv.max(-1)
            likeliest_S = torch.where(largest_S > top_S, index_S + first, likeliest_S)
        else:
            largest_S = logits_Sv.amax(-1)
        raised_S = torch.maximum(top_S, largest_S)
        total_S = total_S * (top_S - raised_S).exp() + logits_Sv.sub_(raised_S[:, None]).exp_().sum(-1)
        top_S = raised_S
    return total_S.log() + top_S - own_S, likeliest_S == target_S


def check_vocabulary(
    name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, largest_id: int = 0
) -> None:
    """Raise `DataError` when the tokenizer, or an id that it gave, goes beyond the model's vocabulary."""
    entries = max(len(tokenizer), largest_id + 1)
    if entries > model.config.vocab_size:
        raise DataError(
            f"{name}: the tokenizer has {entries} entries, the model {model.config.vocab_size}: it is another model's"
        )


def check_head(model: PreTrainedModel, ids_N: NDArray[np.int64]) -> None:
    """Raise `DataError` when a model does more to its logits than its output matrix does (scales, soft caps)."""
    import torch

    ids_BT = torch.from_numpy(ids_N[None, :8].copy()).to(model.device)
    with torch.inference_mode():
        hidden_BTD = model.base_model(input_ids=ids_BT, use_cache=False).last_hidden_state
        ours = model.get_output_embeddings()(hidden_BTD)
        theirs = model(input_ids=ids_BT, use_cache=False).logits
    if not torch.allclose(ours, theirs, rtol=1e-2, atol=1e-3, equal_nan=True):
        raise DataError(f"{type(model).__name__}: its logits are not its output matrix times its last hidden state")


def finite(name: str, nll: Sequence[float], what: Sequence[str]) -> None:
    """Raise `DataError` naming the first item whose log-likelihood is NaN or infinite."""
    for value, item in zip(nll, what, strict=True):
        if not math.isfinite(value):
            raise DataError(f"{name}: the model's log-likelihood of {item} is {value}")
