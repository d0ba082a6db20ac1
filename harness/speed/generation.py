"""Greedy generation with a key/value cache, timed pass by pass."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.speed.energy import Meter

PROMPT_TOKENS = 128
GENERATED_TOKENS = 32
BATCHED_SHARE = 4
"""A round of a batch generates a quarter as many tokens: a pass takes longer and differs less from the next one."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What one round does: a prompt, `prefills` times over, and then tokens one by one."""

    batch: int
    prompt_tokens: int
    generated_tokens: int
    """Passes over one token per sequence; the pass over the prompt gives one token more."""
    prefills: int = 1


@dataclass(frozen=True, kw_only=True)
class Round:
    """One round's times, in seconds, and the joules that the passes over single tokens took."""

    prefill_s: list[float]
    decode_s: list[float]
    energy_j: float | None
    tokens: Tensor = field(compare=False)
    """What was generated (batch x generated_tokens + 1)."""


def workloads(model: PreTrainedModel, batch: int, prefills: int) -> tuple[Workload, Workload]:
    """Of one sequence and of a batch: `PROMPT_TOKENS` and `GENERATED_TOKENS`, or what the model has positions for."""
    positions = model.config.max_position_embeddings
    generated = min(GENERATED_TOKENS, positions // 2)
    prompt = min(PROMPT_TOKENS, positions - generated)
    fewer = max(1, generated // BATCHED_SHARE)
    return (
        Workload(batch=1, prompt_tokens=prompt, generated_tokens=generated, prefills=prefills),
        Workload(batch=batch, prompt_tokens=prompt, generated_tokens=fewer),
    )


@torch.inference_mode()
def generate(model: PreTrainedModel, work: Workload, meter: Meter | None = None) -> Round:
    """Run one round; each pass is timed until its tokens are known.

    Only the last position's logits are computed, as in generation. Legend: B sequences, T tokens of the prompt.
    """
    prompt_BT = prompt(work, model.config.vocab_size).to(model.device)
    prefill_s = []
    for _ in range(work.prefills):
        cache = None  # the previous prompt's goes before the next one's comes
        seconds, last_B1, cache = _pass(model, prompt_BT, cache)
        prefill_s.append(seconds)
    tokens, decode_s = [last_B1], []
    before_j = meter.joules() if meter else None
    for _ in range(work.generated_tokens):
        seconds, last_B1, cache = _pass(model, last_B1, cache)
        tokens.append(last_B1)
        decode_s.append(seconds)
    energy_j = meter.joules() - before_j if meter and before_j is not None else None
    return Round(prefill_s=prefill_s, decode_s=decode_s, energy_j=energy_j, tokens=torch.cat(tokens, dim=1).cpu())


def _pass(model: PreTrainedModel, ids_BT: Tensor, cache: object) -> tuple[float, Tensor, object]:
    """Seconds, the most likely next token of each sequence, and the grown cache."""
    started = time.perf_counter()
    found = model(input_ids=ids_BT, past_key_values=cache, use_cache=True, logits_to_keep=1)
    next_B1: Tensor = found.logits[:, -1:].argmax(-1)
    if next_B1.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started, next_B1, found.past_key_values


def prompt(work: Workload, vocab_size: int) -> Tensor:
    """Token ids (batch x prompt_tokens) 0, 1, 2, ..., starting again: time does not depend on which they are."""
    return torch.arange(work.batch * work.prompt_tokens).reshape(work.batch, work.prompt_tokens) % vocab_size
