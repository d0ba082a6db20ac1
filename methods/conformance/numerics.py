"""Checks of what the student computes as a whole: against the teacher, in bfloat16, compiled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from methods.conformance.bench import Bench, Check, NotApplicable, logits, relative

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FULL_TOLERANCE = 1e-4
"""Relative difference allowed between the teacher's logits and those of a student at a full budget, in float32."""
FALL_SLACK = 1.25
"""An error may exceed the one at the next smaller budget by this factor; the last may not exceed the first."""
AUTOCAST_TOLERANCE = 0.05
"""Relative difference allowed between logits under bfloat16 autocast and in float32; or twice the teacher's own."""
COMPILED_TOLERANCE = 1e-5


def full_budget_reproduces(bench: Bench) -> Iterator[str]:
    if not bench.method.exact_at_full:
        raise NotApplicable("declared exact_at_full = False")
    sample = bench.samples[-1]
    if sample.budget is not None and sample.budget.value < 1:
        yield (
            f"a budget of 1.0 is refused, the nearest is {sample.budget.value:.4f};"
            " plan no surgery there, or declare `exact_at_full = False`"
        )
    difference = relative(logits(sample.student, bench.tokens), logits(bench.teacher, bench.tokens))
    if not difference <= FULL_TOLERANCE:
        yield f"{sample.at} the logits differ from the teacher's by {difference:.1e}, allowed {FULL_TOLERANCE:.0e}"


def error_falls(bench: Bench) -> Iterator[str]:
    if not bench.method.budgeted:
        raise NotApplicable("declared budgeted = False")
    if len(bench.samples) < 2:
        raise NotApplicable(f"one size is all it reaches, {bench.samples[0].at}")
    wanted = logits(bench.teacher, bench.tokens)
    errors = [relative(logits(sample.student, bench.tokens), wanted) for sample in bench.samples]
    steps = [(k, k + 1, FALL_SLACK) for k in range(len(errors) - 1)]
    for k, j, slack in [*steps, (0, len(errors) - 1, 1.0)]:
        if not errors[j] <= errors[k] * slack:
            yield f"the error grows from {errors[k]:.3f} {bench.samples[k].at} to {errors[j]:.3f} {bench.samples[j].at}"


def autocast_is_near(bench: Bench) -> Iterator[str]:
    allowed = max(AUTOCAST_TOLERANCE, 2 * _autocast_error(bench.teacher, bench.tokens))
    for sample in bench.samples:
        difference = _autocast_error(sample.student, bench.tokens)
        if not difference <= allowed:
            yield f"{sample.at} logits under bfloat16 autocast are off by {difference:.3f}, allowed {allowed:.3f}"


def _autocast_error(model: PreTrainedModel, tokens: Tensor) -> float:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = logits(model, tokens)
    return relative(found, logits(model, tokens))


def compiled_is_equal(bench: Bench) -> Iterator[str]:
    sample = bench.samples[0]
    torch._dynamo.reset()
    try:
        compiled = torch.compile(sample.student, backend="eager")
        difference = relative(logits(compiled, bench.tokens), logits(sample.student, bench.tokens))
    finally:
        torch._dynamo.reset()
    if not difference <= COMPILED_TOLERANCE:
        yield f"{sample.at} logits after torch.compile differ by {difference:.1e}, allowed {COMPILED_TOLERANCE:.0e}"


CHECKS = (
    Check(title="a full budget reproduces the teacher", run=full_budget_reproduces),
    Check(title="the error falls as the budget grows", run=error_falls),
    Check(title="bfloat16 autocast is near float32", run=autocast_is_near),
    Check(title="torch.compile changes nothing", run=compiled_is_equal, fast=False),
)
