"""The checks of the conformance kit; each yields what is wrong, in words for the method's author."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from methods import student as students
from methods import tiny
from methods.families import architecture
from methods.interface import Budget, Method, MethodError, Plan
from methods.layers.factorised import Factorised, count
from methods.layers.tied_head import TiedHead

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MATERIALISED_TOLERANCE = 1e-4
"""Relative difference allowed between factorised and materialised logits, in float32."""
FALL_SLACK = 1.1
"""An error may exceed the one at a smaller budget by this factor."""
STEPS = 50


class NotApplicable(Exception):
    """The method declares that a check does not apply to it."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A student at one budget; `budget` is None for a method that ignores budgets."""

    budget: Budget | None
    plan: Plan
    student: PreTrainedModel

    @property
    def at(self) -> str:
        return f"at {self.budget}" if self.budget else "without a budget"


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One teacher and what the method made of it, from the smallest budget to the largest."""

    method: Method
    label: str
    teacher: PreTrainedModel
    samples: list[Sample]


@dataclass(frozen=True, kw_only=True)
class Check:
    """A title, a function that yields problems, and whether it is part of the fast kit."""

    title: str
    run: Callable[[Bench], Iterator[str]]
    fast: bool = True


@torch.no_grad()
def _logits(model: PreTrainedModel) -> Tensor:
    logits: Tensor = model(tiny.tokens()).logits
    return logits


def _relative(a: Tensor, b: Tensor) -> float:
    difference = torch.linalg.vector_norm(a - b, dtype=torch.float64)
    return float(difference / torch.linalg.vector_norm(b, dtype=torch.float64))


def _factorised(model: PreTrainedModel) -> list[tuple[str, Factorised]]:
    return [(path, module) for path, module in model.named_modules() if isinstance(module, Factorised)]


def size_meets_budget(bench: Bench) -> Iterator[str]:
    whole = students.count_params(bench.teacher)
    for sample in bench.samples:
        size = students.count_params(sample.student)
        if size != sample.plan.size:
            yield f"{sample.at} plan promises {sample.plan.size:,} parameters, the student has {size:,}"
        if sample.budget and not sample.budget.met_by(size, whole):
            yield f"{sample.at} the student has {size:,} parameters, asked for {sample.budget.target(whole):,}"


def plan_is_json(bench: Bench) -> Iterator[str]:
    for sample in bench.samples:
        plan = sample.plan
        parts: dict[str, Any] = {"surgery": plan.surgery, "config_changes": plan.config_changes}
        for name, part in (parts | {"details": plan.details}).items():
            try:
                json.dumps(part, allow_nan=False)
            except (TypeError, ValueError) as error:
                yield f"plan.{name} {sample.at} is not JSON: {error}"


def counts_equal_measured(bench: Bench) -> Iterator[str]:
    for sample in bench.samples:
        for path, layer in _factorised(sample.student):
            spec = sample.plan.surgery[path]
            counted = count(spec, layer.out_features, layer.in_features)
            held = layer.num_params - (layer.out_features if layer.bias is not None else 0)
            if counted != held:
                yield f"{path} counts {counted:,} parameters by arithmetic and holds {held:,}"
            if path == architecture(sample.student.config).embedding:
                continue
            measured = _measured_macs(layer, layer.in_features)
            if measured != layer.macs_per_token:
                yield f"{path} says {layer.macs_per_token:,} multiply-adds per token, measured {measured:,}"
        head = getattr(sample.student, "lm_head", None)
        if isinstance(head, TiedHead) and _measured_macs(head, head.emb.in_features) != head.macs_per_token:
            yield f"the tied head says {head.macs_per_token:,} multiply-adds per token, which is not what it does"


def _measured_macs(layer: nn.Module, width: int) -> int:
    """Multiply-adds per token: the slope over two lengths, so that work done once per pass is left out."""
    flops = []
    for length in (4, 8):
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), counter:
            layer(torch.zeros(1, length, width))
        flops.append(counter.get_total_flops())
    return int(flops[1] - flops[0]) // 8


def materialised_is_equal(bench: Bench) -> Iterator[str]:
    for sample in bench.samples:
        try:
            dense = students.materialise(sample.student)
        except MethodError as error:
            raise NotApplicable(f"no dense equivalent: {error}") from None
        difference = _relative(_logits(dense), _logits(sample.student))
        if not difference <= MATERIALISED_TOLERANCE:
            yield f"{sample.at} materialised logits differ from the factorised ones by {difference:.1e}"


def full_budget_reproduces(bench: Bench) -> Iterator[str]:
    if not bench.method.exact_at_full:
        raise NotApplicable("declared exact_at_full = False")
    sample = bench.samples[-1]
    if sample.budget is not None and sample.budget.value < 1:
        yield f"a budget of 1.0 is refused, the nearest is {sample.budget.value:.4f}"
    difference = _relative(_logits(sample.student), _logits(bench.teacher))
    if not difference <= MATERIALISED_TOLERANCE:
        yield f"{sample.at} the logits differ from the teacher's by {difference:.1e}"


def error_falls(bench: Bench) -> Iterator[str]:
    if not bench.method.budgeted:
        raise NotApplicable("declared budgeted = False")
    wanted = _logits(bench.teacher)
    errors = [_relative(_logits(sample.student), wanted) for sample in bench.samples]
    for smaller, larger, before, after in zip(bench.samples, bench.samples[1:], errors, errors[1:], strict=False):
        if not after <= before * FALL_SLACK:
            yield f"the error grows from {before:.3f} {smaller.at} to {after:.3f} {larger.at}"


def gradients_reach_factors(bench: Bench) -> Iterator[str]:
    for sample in bench.samples:
        student = sample.student
        student.zero_grad()
        student(tiny.tokens(), labels=tiny.tokens()).loss.backward()
        for name, parameter in student.named_parameters():
            if parameter.grad is not None and not parameter.grad.isfinite().all():
                yield f"{sample.at} the gradient of {name} is not finite"
        for path, layer in _factorised(student):
            for name, parameter in layer.named_parameters():
                if name != "bias" and (parameter.grad is None or not parameter.grad.any()):
                    yield f"{sample.at} no gradient reaches {path}.{name}"
        student.zero_grad()


def save_and_load_exact(bench: Bench) -> Iterator[str]:
    for sample in bench.samples:
        with TemporaryDirectory() as folder:
            students.save(sample.student, Path(folder))
            loaded = students.load(Path(folder))
            with torch.random.fork_rng(devices=[]):
                classifier = students.load(Path(folder), head="classification", num_labels=2)
        if not torch.equal(_logits(loaded), _logits(sample.student)):
            yield f"{sample.at} the loaded student computes other logits than the saved one"
        if loaded.config.to_dict() != sample.student.config.to_dict():
            yield f"{sample.at} the loaded student has another configuration"
        if _relative(_hidden(classifier), _hidden(sample.student)) > 0:
            yield f"{sample.at} the classifier computes other hidden states than the language model"


@torch.no_grad()
def _hidden(model: PreTrainedModel) -> Tensor:
    hidden: Tensor = getattr(model, model.base_model_prefix)(tiny.tokens()).last_hidden_state
    return hidden


def tied_stays_tied(bench: Bench) -> Iterator[str]:
    for sample in bench.samples:
        student = sample.student
        asked = sample.plan.config_changes.get("tie_word_embeddings", bench.teacher.config.tie_word_embeddings)
        embedding, head = student.get_input_embeddings(), student.lm_head
        if isinstance(head, TiedHead):
            tied = head.emb is embedding
        else:
            tied = getattr(head, "weight", None) is getattr(embedding, "weight", embedding)
        if tied != asked:
            words = ("untied", "tied") if asked else ("tied", "untied")
            yield f"{sample.at} embedding and output matrix are {words[0]}, should be {words[1]}"


def same_seed_same_bits(bench: Bench) -> Iterator[str]:
    sample = bench.samples[0]
    before = {name: each.clone() for name, each in bench.teacher.state_dict().items()}
    again = dict(bench.method.compress(bench.teacher, sample.plan, seed=0, statistics={}).named_parameters())
    for name, each in bench.teacher.state_dict().items():
        if not torch.equal(each, before[name]):
            yield f"compress changes the teacher's {name}"
    for name, parameter in sample.student.named_parameters():
        if name not in again or not torch.equal(parameter, again[name]):
            yield f"{name} differs between two runs with the same seed"


def taps_resolve(bench: Bench) -> Iterator[str]:
    for sample in bench.samples:
        for tap in bench.method.taps(bench.teacher.config, sample.plan):
            for side, model, path in (
                ("teacher", bench.teacher, tap.teacher),
                ("student", sample.student, tap.student),
            ):
                if path not in dict(model.named_modules()):
                    yield f"a tap names {path!r}, which the {side} {sample.at} does not have"
                elif tap.kind == "attention" and path not in architecture(model.config).attentions:
                    yield f"a tap compares attention at {path!r}, which is no attention module of the {side}"
        shapes = [_output_shapes(bench.teacher), _output_shapes(sample.student)]
        for tap in bench.method.taps(bench.teacher.config, sample.plan):
            ours, theirs = shapes[1].get(tap.student), shapes[0].get(tap.teacher)
            if tap.kind == "output" and ours != theirs:
                yield f"a tap compares {tap.teacher!r} {theirs} with {tap.student!r} {ours}"


def _output_shapes(model: PreTrainedModel) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}

    def note(path: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) else output
            if isinstance(first, Tensor):
                shapes[path] = tuple(first.shape)

        return hook

    handles = [module.register_forward_hook(note(path)) for path, module in model.named_modules() if path]
    _logits(model)
    for handle in handles:
        handle.remove()
    return shapes


def steps_lower_loss(bench: Bench) -> Iterator[str]:
    """Trains a loaded copy, so that the other checks see the student as compressed."""
    sample = bench.samples[0]
    with TemporaryDirectory() as folder:
        students.save(sample.student, Path(folder))
        trained = students.load(Path(folder))
    optimiser = torch.optim.AdamW(trained.parameters(), lr=1e-3)
    losses = []
    for _ in range(STEPS):
        loss = trained(tiny.tokens(), labels=tiny.tokens()).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    if not losses[-1] < losses[0]:
        yield f"{sample.at} {STEPS} steps take the loss from {losses[0]:.3f} to {losses[-1]:.3f}"


CHECKS: Sequence[Check] = (
    Check(title="the size meets the budget", run=size_meets_budget),
    Check(title="the plan is JSON", run=plan_is_json),
    Check(title="counts equal the measured ones", run=counts_equal_measured),
    Check(title="factorised forward equals materialised forward", run=materialised_is_equal),
    Check(title="a full budget reproduces the teacher", run=full_budget_reproduces),
    Check(title="the error falls as the budget grows", run=error_falls),
    Check(title="gradients are finite and reach every factor", run=gradients_reach_factors),
    Check(title="save and load are exact", run=save_and_load_exact),
    Check(title="tied embeddings stay tied", run=tied_stays_tied),
    Check(title="the same seed gives the same bits", run=same_seed_same_bits),
    Check(title="taps resolve", run=taps_resolve),
    Check(title="fifty steps lower the loss", run=steps_lower_loss, fast=False),
)
