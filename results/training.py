"""What training by its recipe took of a row's students, and which learning rates were tried for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from results.formatting import count
from results.model import Group, Row, Seed
from results.record import Record, Trial, Tuning

FARTHEST, LARGEST, SMALLEST = 1e18, 1e50, 1e-50
"""A step or number of tokens, and values of a loss curve, beyond which nothing is drawn."""
STAGES = ("tune", "distill")
"""Training by the recipe: trials of learning rates, and what follows them."""


def student_training(record: Record) -> dict[str, Any]:
    """`tokens` and `flops` of a cell's student."""
    costs = [cost for cost in record.costs if cost.stage in STAGES]
    return {"tokens": sum(cost.tokens for cost in costs), "flops": sum(cost.flops for cost in costs)}


def drawable(curve: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
    """The points whose place is a number; of what they say, what is a number."""
    places = [point for point in curve if all(abs(point.get(name, 0)) <= FARTHEST for name in ("step", "tokens"))]
    return [
        {name: value if abs(value) >= SMALLEST else 0.0 for name, value in point.items() if abs(value) <= LARGEST}
        for point in places
    ]


def training_facts(row: Row) -> dict[str, str]:
    """`trained on`, `tuning` and `tuning of <task>` in words; empty for a row that does not train."""
    longest = max(row.seeds, key=lambda seed: seed.tokens)
    trained = f"{count(longest.tokens)} tokens, {count(longest.flops)} FLOPs a seed"
    facts = {"trained on": trained} if longest.tokens else {}
    tasks = sorted({tuning.task for seed in row.seeds for tuning in seed.tuning})
    return facts | {f"tuning of {task}" if task else "tuning": _tuning(row.seeds, task) for task in tasks}


def _tuning(seeds: Sequence[Seed], task: str) -> str:
    """`3 rates, 90k tokens, 2.1G FLOPs a seed; chose 0.001 (seed 0), 0.002 (seed 1); diverged: 0.1 (seed 0)`."""
    tuned = {seed.seed: [tuning for tuning in seed.tuning if tuning.task == task] for seed in seeds}
    first = max(tuned.values(), key=len)
    trials = [trial for tuning in first for trial in tuning.trials]
    rates = f"{len({trial.learning_rate for trial in trials})} rates"
    rates += f" in each of {len(first)} phases" if len(first) > 1 else ""
    spent = f"{count(sum(t.tokens for t in trials))} tokens, {count(sum(t.flops for t in trials))} FLOPs a seed"
    parts = [f"{rates}, {spent}"]
    chosen = {seed: [f"{t.learning_rate:g}" for t in found if t.learning_rate] for seed, found in tuned.items()}
    lost = {seed: [f"{t.learning_rate:g}" for t in _diverged(found)] for seed, found in tuned.items()}
    for word, between, found in (("chose", " then ", chosen), ("diverged:", " and ", lost)):
        told = [f"{between.join(names)} (seed {seed})" for seed, names in found.items() if names]
        parts += [f"{word} {', '.join(told)}"] if told else []
    return "; ".join(parts)


def _diverged(tunings: Iterable[Tuning]) -> Iterator[Trial]:
    return (trial for tuning in tunings for trial in tuning.trials if trial.diverged_at_step is not None)


def unequal_tokens(groups: Iterable[Group]) -> Iterator[str]:
    """A note on each shared recipe whose rows saw different numbers of tokens, as a budget in FLOPs makes them."""
    for group in groups:
        rows = [row for row in group.rows if row.recipe == "shared" and row.status == "complete"]
        seen = {row.id: max(seed.tokens for seed in row.seeds) for row in rows}
        if len(set(seen.values())) > 1:
            each = ", ".join(f"{row.label} {count(seen[row.id])}" for row in rows)
            yield f"recipe {group.recipe}: training tokens a seed: {each}"
