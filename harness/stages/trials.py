"""What trials of learning rates left behind, and which rate they say is best."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from harness.stage import StageFailure


class AllDiverged(StageFailure):
    """No learning rate of the grid is low enough."""

    failure_class = "diverged"


def best_rate(inputs: Mapping[str, Path], outcome: str, *, higher_is_better: bool = False) -> float:
    """The rate with the best `outcome` among the `trial` inputs; of equal ones the smallest.

    Raises:
        AllDiverged: no trial has an outcome.
    """
    trials = [
        json.loads((path / "trial.json").read_text()) for role, path in inputs.items() if role.startswith("trial ")
    ]
    sign = -1 if higher_is_better else 1
    tried = [(sign * trial[outcome], trial["learning_rate"]) for trial in trials if outcome in trial]
    if not tried:
        ended = ", ".join(f"{trial['learning_rate']:g} at step {trial['diverged_at_step']}" for trial in trials)
        raise AllDiverged(f"every learning rate of the grid diverged: {ended}")
    return float(min(tried)[1])
