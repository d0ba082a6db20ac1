"""Checks of what a method may touch and read: seeds, the teacher, statistics, phases, taps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from math import isclose
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from methods import student as students
from methods.conformance.bench import Bench, Check, factorised, logits
from methods.families import architecture
from methods.interface import TOLERANCE, Phase, Tap
from methods.student_config import surgery_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def same_seed_same_bits(bench: Bench) -> Iterator[str]:
    """A second run under other global random states; with another seed, too, unless the method draws."""
    sample, stochastic = bench.samples[0], bench.method.stochastic
    other = _difference(sample.student, _compress_again(bench, 1))
    again = other if other is None and not stochastic else _difference(sample.student, _compress_again(bench, 0))
    if again:
        yield f"{again} differs between two runs with seed 0; draw from a generator seeded with `seed`"
    elif other and not stochastic:
        yield f"{other} depends on the seed, but the method does not declare `stochastic`"
    elif not other and stochastic:
        yield "seeds 0 and 1 give the same student, but the method declares `stochastic`"


def _compress_again(bench: Bench, seed: int) -> PreTrainedModel:
    state = np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(12345 + seed)
            np.random.seed(12345 + seed)
            plan = bench.method.refine(bench.teacher, bench.samples[0].planned, bench.statistics)
            return bench.method.compress(bench.teacher, plan, seed=seed, statistics=bench.statistics)
    finally:
        np.random.set_state(state)


def _difference(one: PreTrainedModel, other: PreTrainedModel) -> str | None:
    """The first tensor that differs."""
    ours, theirs = one.state_dict(), other.state_dict()
    unequal = (name for name in ours if name not in theirs or not torch.equal(ours[name], theirs[name]))
    return next(unequal, None)


def teacher_is_left_alone(bench: Bench) -> Iterator[str]:
    after = bench.teacher.state_dict()
    for name, each in bench.before.items():
        if name not in after or not torch.equal(after[name], each):
            yield f"compress changes the teacher's {name}; work on a copy"
    theirs = {parameter.data_ptr() for parameter in bench.teacher.parameters()}
    for sample in bench.samples:
        for name, parameter in sample.student.named_parameters():
            if parameter.data_ptr() in theirs:
                yield f"{name} {sample.at} shares memory with the teacher: training it would change the teacher"


def reads_what_it_declares(bench: Bench) -> Iterator[str]:
    """Reading more than `needs` names fails where it happens; reading less costs everyone a calibration."""
    for name in sorted(bench.method.needs - bench.statistics.read):
        yield f"`needs` names {name!r}, which neither refine nor compress reads; leave it out"


def phases_lead_to_the_plan(bench: Bench) -> Iterator[str]:
    for sample in bench.samples:
        phases = bench.method.phases(bench.teacher.config, sample.planned)
        if not phases or phases[-1].plan != sample.planned:
            yield f"{sample.at} the last phase's plan is not the plan"
            return
        total = sum(phase.share for phase in phases)
        if not isclose(total, 1, rel_tol=1e-6) or min(phase.share for phase in phases) < 0:
            yield f"{sample.at} the shares of {len(phases)} phases sum to {total:g}, should be 1"
        for number, (earlier, later) in enumerate(pairwise(phases), 1):
            lost = sorted(earlier.plan.surgery.keys() - later.plan.surgery.keys())
            if lost:
                yield f"{sample.at} phase {number + 1} restores {lost[0]}, which phase {number} replaced"
    smallest = bench.method.phases(bench.teacher.config, bench.samples[0].planned)
    if len(smallest) > 1:
        yield from _walk(bench, smallest)


def _walk(bench: Bench, phases: Sequence[Phase]) -> Iterator[str]:
    """Each phase compresses the student that the one before left, as the harness does."""
    before = bench.teacher
    for number, phase in enumerate(phases, 1):
        plan = bench.method.refine(before, phase.plan, bench.statistics)
        student = bench.method.compress(before, plan, seed=0, statistics=bench.statistics)
        size = students.count_params(student)
        if abs(size - phase.plan.size) > TOLERANCE * phase.plan.size:
            yield f"phase {number} leaves {size:,} parameters, its plan says {phase.plan.size:,}"
        if not torch.isfinite(logits(student, bench.tokens)).all():
            yield f"phase {number} leaves a student whose logits are not finite"
        old = dict(factorised(before))
        specs, specs_now = surgery_of(before.config), surgery_of(student.config)
        for path in (path for path in specs if specs_now.get(path) == specs[path]):
            held, now = old[path].state_dict(), student.get_submodule(path).state_dict()
            if any(not torch.equal(held[name], now[name]) for name in held):
                yield f"phase {number} recomputes {path}, which phase {number - 1} had trained; copy it"
        before = student


def taps_resolve(bench: Bench) -> Iterator[str]:
    for sample in bench.samples:
        taps = bench.method.taps(bench.teacher.config, sample.plan)
        for tap in taps:
            yield from _resolve(tap, bench.teacher, "teacher")
            yield from _resolve(tap, sample.student, f"student {sample.at}")
        shapes = [_output_shapes(model, bench.tokens) for model in (bench.teacher, sample.student)] if taps else []
        for tap in taps:
            theirs, ours = shapes[0].get(tap.teacher), shapes[1].get(tap.student)
            if tap.kind == "output" and ours != theirs:
                yield f"a tap compares {tap.teacher!r} {theirs} with {tap.student!r} {ours}"


def _resolve(tap: Tap, model: PreTrainedModel, side: str) -> Iterator[str]:
    path = tap.teacher if side == "teacher" else tap.student
    if path not in dict(model.named_modules()):
        yield f"a tap names {path!r}, which the {side} does not have"
    elif tap.kind == "attention" and path not in architecture(model.config).attentions:
        yield f"a tap compares attention at {path!r}, which is no attention module of the {side}"


def _output_shapes(model: PreTrainedModel, tokens: Tensor) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}

    def note(path: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) else output
            if isinstance(first, Tensor):
                shapes[path] = tuple(first.shape)

        return hook

    handles = [module.register_forward_hook(note(path)) for path, module in model.named_modules() if path]
    logits(model, tokens)
    for handle in handles:
        handle.remove()
    return shapes


CHECKS = (
    Check(title="phases lead to the plan", run=phases_lead_to_the_plan),
    Check(title="the same seed gives the same bits", run=same_seed_same_bits),
    Check(title="the method reads the statistics it declares", run=reads_what_it_declares),
    Check(title="the teacher is left alone", run=teacher_is_left_alone),
    Check(title="taps resolve", run=taps_resolve),
)
