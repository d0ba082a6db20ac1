"""The speed card: a student's speed in both its forms, what it takes, and the noise of the machine that measured."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FormSpeed(_Part):
    """One form of a student. Times are medians; None is what was not, or could not be measured."""

    prefill_ms: float
    """Batch 1: one pass over the prompt, which fills the key/value cache and gives the next token."""
    prefill_p99_ms: float | None = None
    """99th percentiles are of 100 passes or more."""
    decode_ms: float | None = None
    """Batch 1: one further token with the cache."""
    decode_p99_ms: float | None = None
    prefill_tokens_per_s: float
    """A large batch: prompt tokens."""
    decode_tokens_per_s: float | None = None
    """A large batch: generated tokens, with the cache, the prompt's pass not counted."""
    peak_memory_bytes: int | None = None
    """Weights, cache and activations, over what the process had before."""
    load_s: float | None = None
    """From the model's directory to a model on its device, files in the page cache."""
    energy_j_per_token: float | None = None
    """Batch 1: per generated token, by the hardware's own counter."""


class SpeedNoise(_Part):
    """By what two measurements of one model differ, relative: 0.03 is 3 %. A smaller difference is none."""

    prefill: float
    decode: float
    prefill_throughput: float
    decode_throughput: float


class SpeedSettings(_Part):
    """What the figures were measured with."""

    device: str
    """`cpu`, or the GPU's name."""
    threads: int
    dtype: str
    prompt_tokens: int
    generated_tokens: int
    """In a round at batch 1; a quarter as many in one at `batch`."""
    batch: int
    """Of the throughputs."""
    warm_up_rounds: int
    latency_rounds: int
    """Rounds at batch 1, of the factorised form; the materialised one has half as many, since it has no A/A."""
    throughput_rounds: int
    energy_source: str | None = None


class SpeedCard(_Part):
    """Measured on `hardware`; never part of quality."""

    hardware: str
    factorised: FormSpeed
    materialised: FormSpeed | None = None
    """The dense equivalent; None where a layer has none."""
    noise: SpeedNoise | None = None
    settings: SpeedSettings | None = None
    """None in a card of schema 1, which had no noise, computed the logits of all positions without a cache, and whose
    peak memory was the whole process's."""


def from_schema_1(card: dict[str, Any]) -> dict[str, Any]:
    """A card of schema 1, whose fields were flat, as one of schema 2."""
    materialised = {
        "prefill_ms": card["materialised_latency_ms"],
        "prefill_tokens_per_s": card["materialised_throughput_tokens_per_s"],
    }
    factorised = {"prefill_ms": card["latency_ms"], "prefill_tokens_per_s": card["throughput_tokens_per_s"]}
    memory = {"peak_memory_bytes": card["peak_memory_bytes"]}
    return {"hardware": card["hardware"], "factorised": factorised | memory, "materialised": materialised}
