"""A speed card as a reader sees it: one cell of a table, a table of its own, numbers for a spreadsheet."""

from __future__ import annotations

from dataclasses import dataclass

from results.speed_card import FormSpeed, SpeedCard, SpeedNoise

FORM_PARTS = tuple(FormSpeed.model_fields)
NOISE_PARTS = tuple(SpeedNoise.model_fields)
SPEED_HEAD = (
    "hardware",
    *FORM_PARTS,
    *(f"materialised_{name}" for name in FORM_PARTS),
    *(f"{name}_noise" for name in NOISE_PARTS),
)


def latency(speed: SpeedCard) -> str:
    """`6.1 < 8.4 ms ±3 %`; `6.1 ms` where there is one form; `prefill` is said where tokens were not timed."""
    ours = latency_ms(speed)
    unit = "ms" if speed.factorised.decode_ms is not None else "ms prefill"
    noise = f" ±{percent(speed.noise.decode)}" if speed.noise else ""
    if speed.materialised is None:
        return f"{ours:.3g} {unit}{noise}"
    theirs = speed.materialised.decode_ms or speed.materialised.prefill_ms
    return f"{ours:.3g} {_sign(ours, theirs, speed.noise)} {theirs:.3g} {unit}{noise}"


def latency_ms(speed: SpeedCard) -> float:
    """What rows are sorted by."""
    return speed.factorised.decode_ms or speed.factorised.prefill_ms


def _sign(ours: float, theirs: float, noise: SpeedNoise | None) -> str:
    if noise is None:
        return "|"
    if abs(ours - theirs) <= noise.decode * (ours + theirs) / 2:
        return "≈"
    return "<" if ours < theirs else ">"


def percent(fraction: float) -> str:
    """`3 %`, `0.4 %`."""
    return f"{100 * fraction:.2g} %" if fraction < 0.995 else f"{100 * fraction:.0f} %"


@dataclass(frozen=True)
class Figure:
    """One figure of both forms; `–` where it was not measured."""

    name: str
    factorised: str
    materialised: str
    noise: str


def figures(speed: SpeedCard) -> list[Figure]:
    """All figures of a card, in the order of its fields."""
    ours, theirs = _texts(speed.factorised), _texts(speed.materialised)
    prompt = f" of {speed.settings.prompt_tokens} tokens" if speed.settings else ""
    batch = f" at batch {speed.settings.batch}" if speed.settings else ""
    names = [f"prefill{prompt}", "each further token", f"prompt tokens/s{batch}", f"generated tokens/s{batch}"]
    names += ["peak memory", "load time", "energy per token"]
    noise = [f"±{percent(value)}" for value in speed.noise.model_dump().values()] if speed.noise else []
    noise += [""] * (len(names) - len(noise))
    return [Figure(*parts) for parts in zip(names, ours, theirs, noise, strict=True)]


def _texts(form: FormSpeed | None) -> list[str]:
    if form is None:
        return ["–"] * 7
    return [
        _ms(form.prefill_ms, form.prefill_p99_ms),
        _ms(form.decode_ms, form.decode_p99_ms),
        _number(form.prefill_tokens_per_s),
        _number(form.decode_tokens_per_s),
        _number(None if form.peak_memory_bytes is None else form.peak_memory_bytes / 1e6, " MB"),
        _number(form.load_s, " s"),
        _number(form.energy_j_per_token, " J"),
    ]


def speed_facts(speed: SpeedCard) -> dict[str, str]:
    """A line per figure, factorised | materialised, and how they were measured."""
    known = [f for f in figures(speed) if (f.factorised, f.materialised) != ("–", "–")]
    lines = {f"speed: {f.name}": f"{f.factorised} | {f.materialised} {f.noise}".rstrip() for f in known}
    return lines | {"speed: measured": measured(speed)}


def measured(speed: SpeedCard) -> str:
    """On what, and how often."""
    if (used := speed.settings) is None:
        return f"{speed.hardware}; by schema 1: all logits, no cache, memory of the whole process"
    threads = f", {used.threads} threads" if used.device == "cpu" else ""
    rounds = f"{used.latency_rounds} rounds of {used.generated_tokens} tokens"
    return (
        f"{speed.hardware}; {used.device}{threads}, {used.dtype}; {rounds}, {used.throughput_rounds} at batch "
        f"{used.batch}, {used.warm_up_rounds} of either before to warm up; energy: {used.energy_source or 'no counter'}"
    )


def _ms(middle: float | None, p99: float | None) -> str:
    return _number(middle, " ms") + (f" (p99 {p99:.3g})" if p99 is not None else "")


def _number(value: float | None, unit: str = "") -> str:
    if value is None:
        return "–"
    return (f"{value:,.0f}" if value >= 1000 else f"{value:.3g}") + unit


def speed_cells(speed: SpeedCard | None) -> list[object]:
    """Values under `SPEED_HEAD`."""
    if speed is None:
        return [None] * len(SPEED_HEAD)
    forms = (speed.factorised, speed.materialised)
    parts = [getattr(form, name, None) for form in forms for name in FORM_PARTS]
    return [speed.hardware, *parts, *(getattr(speed.noise, name, None) for name in NOISE_PARTS)]
