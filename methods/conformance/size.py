"""Checks of sizes: what the plan promises, what the student holds and what it multiplies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from methods import student as students
from methods.conformance.bench import Bench, Check, factorised, nearest_plan
from methods.families import architecture
from methods.interface import TOLERANCE
from methods.layers.factorised import count
from methods.layers.tied_head import TiedHead
from methods.sizes import size_in

if TYPE_CHECKING:
    pass


def size_meets_budget(bench: Bench) -> Iterator[str]:
    whole = students.count_params(bench.teacher)
    for sample in bench.samples:
        size = students.count_params(sample.student)
        if size != sample.plan.size:
            yield (
                f"{sample.at} plan.size promises {sample.plan.size:,} parameters, the student has {size:,};"
                " count with `planning.student_size`"
            )
        if sample.budget and sample.budget.unit == "params" and not sample.budget.met_by(size, whole):
            yield f"{sample.at} the student has {size:,} parameters, asked for {sample.budget.target(whole):,}"


def other_units_are_met(bench: Bench) -> Iterator[str]:
    """Budgets in each further unit that the method declares, at half of the teacher or what is nearest."""
    for unit in sorted(bench.method.units - {"params"}):
        budget, planned = nearest_plan(bench.method, bench.source, 0.5, unit)
        plan = bench.method.refine(bench.teacher, planned, bench.statistics)
        student = bench.method.compress(bench.teacher, plan, seed=0, statistics=bench.statistics)
        size, whole = (size_in(unit, model) for model in (student, bench.teacher))
        if not budget.met_by(size, whole):
            yield f"at {budget} the student has {size:,} {unit}, asked for {budget.target(whole):,}"


def plan_is_json(bench: Bench) -> Iterator[str]:
    for sample in bench.samples:
        plan = sample.plan
        parts: dict[str, Any] = {"surgery": plan.surgery, "config_changes": plan.config_changes}
        for name, part in (parts | {"details": plan.details, "trained": list(plan.trained)}).items():
            try:
                json.dumps(part, allow_nan=False)
            except (TypeError, ValueError) as error:
                yield f"plan.{name} {sample.at} is not JSON: {error}"


def refining_keeps_size(bench: Bench) -> Iterator[str]:
    for sample in bench.samples:
        before, after = sample.planned.size, sample.plan.size
        if abs(after - before) > TOLERANCE * before:
            yield (
                f"{sample.at} refine turns {before:,} parameters into {after:,}, {after / before - 1:+.1%};"
                " redistribute, do not add"
            )


def counts_equal_measured(bench: Bench) -> Iterator[str]:
    for sample in bench.samples:
        seen: set[str] = set()
        for path, layer in factorised(sample.student):
            spec = sample.plan.surgery[path]
            counted = count(spec, layer.out_features, layer.in_features)
            held = layer.num_params - (layer.out_features if layer.bias is not None else 0)
            if counted != held:
                yield f"{path} {sample.at} counts {counted:,} parameters by arithmetic and holds {held:,}"
            same = json.dumps([dict(spec), layer.out_features, layer.in_features], sort_keys=True)
            if path == architecture(sample.student.config).embedding or same in seen:
                continue
            seen.add(same)
            measured = _measured_macs(layer, layer.in_features)
            if measured != layer.macs_per_token:
                yield f"{path} says {layer.macs_per_token:,} multiply-adds per token, measured {measured:,}"
        head = getattr(sample.student, "lm_head", None)
        if isinstance(head, TiedHead):
            measured = _measured_macs(head, head.emb.in_features)
            if measured != head.macs_per_token:
                yield f"the tied head says {head.macs_per_token:,} multiply-adds per token, measured {measured:,}"


def _measured_macs(layer: nn.Module, width: int) -> int:
    """Multiply-adds per token: the slope over two lengths, so that work done once per pass is left out."""
    flops = []
    for length in (4, 8):
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), counter:
            layer(torch.zeros(1, length, width))
        flops.append(counter.get_total_flops())
    return int(flops[1] - flops[0]) // 8


CHECKS = (
    Check(title="the size meets the budget", run=size_meets_budget),
    Check(title="budgets in other units are met", run=other_units_are_met),
    Check(title="the plan is JSON", run=plan_is_json),
    Check(title="refining keeps the size", run=refining_keeps_size),
    Check(title="counts equal the measured ones", run=counts_equal_measured),
)
