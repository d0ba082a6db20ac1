"""What training by its recipe took of a row's students, and which learning rates were tried for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from results.formatting import count
from results.model import Group, Row, Seed
from results.record import Record, Trial

STAGES = ("tune", "distill")
"""Training by the recipe: trials of learning rates, and what follows them."""


def student_training(record: Record) -> dict[str, Any]:
    """`tokens` and `flops` of a cell's student."""
    costs = [cost for cost in record.costs if cost.stage in STAGES]
    return {"tokens": sum(cost.tokens for cost in costs), "flops": sum(cost.flops for cost in costs)}


def training_facts(row: Row) -> dict[str, str]:
    """`trained on` and `tuning` in words; empty for a row that does not train."""
    longest = max(row.seeds, key=lambda seed: seed.tokens)
    trained = f"{count(longest.tokens)} tokens, {count(longest.flops)} FLOPs a seed"
    facts = {"trained on": trained} if longest.tokens else {}
    tuned = [seed for seed in row.seeds if seed.tuning]
    return facts | ({"tuning": _tuning(tuned)} if tuned else {})


def _tuning(seeds: Sequence[Seed]) -> str:
    """`3 rates, 90k tokens, 2.1G FLOPs a seed; chose 0.001 (seed 0), 0.002 (seed 1); diverged: 0.1 (seed 0)`."""
    first = max(seeds, key=lambda seed: len(seed.tuning))
    trials = [trial for tuning in first.tuning for trial in tuning.trials]
    rates = f"{len({trial.learning_rate for trial in trials})} rates"
    rates += f" in each of {len(first.tuning)} phases" if len(first.tuning) > 1 else ""
    spent = f"{count(sum(t.tokens for t in trials))} tokens, {count(sum(t.flops for t in trials))} FLOPs a seed"
    parts = [f"{rates}, {spent}"]
    chosen = {seed.seed: [f"{t.learning_rate:g}" for t in seed.tuning if t.learning_rate] for seed in seeds}
    lost = {seed.seed: [f"{t.learning_rate:g}" for t in _diverged(seed)] for seed in seeds}
    for word, between, found in (("chose", " then ", chosen), ("diverged:", " and ", lost)):
        told = [f"{between.join(names)} (seed {seed})" for seed, names in found.items() if names]
        parts += [f"{word} {', '.join(told)}"] if told else []
    return "; ".join(parts)


def _diverged(seed: Seed) -> Iterator[Trial]:
    return (trial for tuning in seed.tuning for trial in tuning.trials if trial.diverged_at_step is not None)


def unequal_tokens(groups: Iterable[Group]) -> Iterator[str]:
    """A note on each shared recipe whose rows saw different numbers of tokens, as a budget in FLOPs makes them."""
    for group in groups:
        rows = [row for row in group.rows if row.recipe == "shared" and row.status == "complete"]
        seen = {row.id: max(seed.tokens for seed in row.seeds) for row in rows}
        if len(set(seen.values())) > 1:
            each = ", ".join(f"{row.label} {count(seen[row.id])}" for row in rows)
            yield f"recipe {group.recipe}: training tokens a seed: {each}"
