"""The figures of a speed card, from rounds of generation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from statistics import median

from harness.speed.generation import Round, Workload
from harness.speed.noise import noise, p99
from results.speed_card import FormSpeed, SpeedNoise


def form_speed(
    latency: Sequence[Round],
    throughput: Sequence[Round],
    batched: Workload,
    *,
    load_s: float,
    peak_memory_bytes: int | None,
) -> FormSpeed:
    """Medians over all passes of one form: `latency` has rounds at batch 1, `throughput` those of `batched`."""
    prefill_s, decode_s = _passes(latency)
    batch_prefill_s, batch_decode_s = _passes(throughput)
    return FormSpeed(
        prefill_ms=median(prefill_s) * 1e3,
        prefill_p99_ms=_ms(p99(prefill_s)),
        decode_ms=median(decode_s) * 1e3,
        decode_p99_ms=_ms(p99(decode_s)),
        prefill_tokens_per_s=batched.batch * batched.prompt_tokens / median(batch_prefill_s),
        decode_tokens_per_s=batched.batch / median(batch_decode_s),
        peak_memory_bytes=peak_memory_bytes,
        load_s=load_s,
        energy_j_per_token=_energy_per_token(latency),
    )


def speed_noise(latency: Sequence[Round], throughput: Sequence[Round]) -> SpeedNoise:
    """Of one form, at batch 1 and at the large batch; a round counts by the medians of its passes."""
    return SpeedNoise(
        prefill=noise([median(each.prefill_s) for each in latency]),
        decode=noise([median(each.decode_s) for each in latency]),
        prefill_throughput=noise([median(each.prefill_s) for each in throughput]),
        decode_throughput=noise([median(each.decode_s) for each in throughput]),
    )


def _passes(rounds: Iterable[Round]) -> tuple[list[float], list[float]]:
    every = list(rounds)
    return list(chain(*(each.prefill_s for each in every))), list(chain(*(each.decode_s for each in every)))


def _energy_per_token(rounds: Sequence[Round]) -> float | None:
    counted = [each.energy_j for each in rounds if each.energy_j is not None]
    return sum(counted) / sum(len(each.decode_s) for each in rounds) if counted else None


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3
