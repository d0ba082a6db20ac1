"""The speed card: a student's speed in both its forms, what it takes, and the noise of the machine that measured."""

from __future__ import annotations

from typing import Any

from results.record_types import Amount, Count, Finite, Name, Part


class FormSpeed(Part):
    """One form of a student. Times are medians; None is what was not, or could not be measured."""

    prefill_ms: Amount
    """Batch 1: one pass over the prompt, which fills the key/value cache and gives the next token."""
    prefill_p99_ms: Amount | None = None
    """99th percentiles are of 100 passes or more."""
    decode_ms: Amount | None = None
    """Batch 1: one further token with the cache."""
    decode_p99_ms: Amount | None = None
    """99th percentile of the same."""
    prefill_tokens_per_s: Amount
    """A large batch: prompt tokens."""
    decode_tokens_per_s: Amount | None = None
    """A large batch: generated tokens, with the cache, the prompt's pass not counted."""
    peak_memory_bytes: Count | None = None
    """Weights, cache and activations, over what the process had before."""
    load_s: Amount | None = None
    """From the model's directory to a model on its device, files in the page cache."""
    energy_j_per_token: Finite | None = None
    """Batch 1: per generated token, by the hardware's own counter."""


class SpeedNoise(Part):
    """By what two measurements of one model differ, relative: 0.03 is 3 %. A smaller difference is none."""

    prefill: Amount
    """Of `prefill_ms`."""
    decode: Amount
    """Of `decode_ms`."""
    prefill_throughput: Amount
    """Of `prefill_tokens_per_s`."""
    decode_throughput: Amount
    """Of `decode_tokens_per_s`."""


class SpeedSettings(Part):
    """What the figures were measured with."""

    device: Name
    """`cpu`, or the GPU's name."""
    threads: Count
    """Of torch."""
    dtype: Name
    """Of weights and activations."""
    prompt_tokens: Count
    """In a pass over the prompt."""
    generated_tokens: Count
    """In a round at batch 1; a quarter as many in one at `batch`."""
    batch: Count
    """Of the throughputs."""
    warm_up_rounds: Count
    """Rounds that are not counted."""
    latency_rounds: Count
    """Rounds at batch 1, of the factorised form; the materialised one has half as many, since it has no A/A."""
    throughput_rounds: Count
    """The same at `batch`."""
    energy_source: Name | None = None
    """The counter that joules were read from."""


class SpeedCard(Part):
    """Measured on `hardware`; never part of quality."""

    hardware: Name
    """Class of the machine: figures of different ones are not comparable."""
    factorised: FormSpeed
    """The student as it is."""
    materialised: FormSpeed | None = None
    """The dense equivalent; None where a layer has none."""
    noise: SpeedNoise | None = None
    """None in a card of schema 1."""
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
