"""`weighin plan`: the graph with cached / to run / refused, why a stage misses, and what the rest costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.cells import SweepPlan
from harness.driver import State
from harness.engine.preflight import gib
from harness.graph import Stage, why_different
from harness.pricing import CPU_FLOPS, GPU_FLOPS, Price, measured_rate
from harness.stage_memory import Forecast
from methods.interface import Plan
from results.artifacts import Artifacts

_WORDS = {State.CACHED: "cached", State.WAITING: "to run", State.FAILED: "failed before", State.BLOCKED: "blocked"}


def reasons(plan: SweepPlan, states: Mapping[str, State], artifacts: Artifacts) -> dict[str, str]:
    """Key -> which parts of the key differ from the most similar artifact that is there."""
    found = {}
    for name in {stage.name for stage in plan.stages if states[stage.key] is State.WAITING}:
        others = list(artifacts.manifests(name))
        for stage in (s for s in plan.stages if s.name == name and states[s.key] is State.WAITING):
            differences: list[list[str]] = [why_different(stage.parts, other.parts) for other in others]
            if differences:
                closest: list[str] = min(differences, key=len)
                found[stage.key] = f"changed: {', '.join(closest)}"
    return found


def plan_json(
    plan: SweepPlan,
    states: Mapping[str, State],
    why: Mapping[str, str],
    priced: Mapping[str, Price],
    memory: Mapping[str, Forecast],
) -> dict[str, Any]:
    """The plan as data."""
    return {
        "sweep": plan.sweep.name,
        "stages": [
            {"key": s.key, "stage": s.name, "label": s.label, "state": _WORDS[states[s.key]]}
            | ({"why": why[s.key]} if s.key in why else {})
            | (
                {"tokens": p.tokens, "flops": p.flops, "worker_hours": p.worker_hours}
                if (p := priced.get(s.key))
                else {}
            )
            | (_memory_json(memory[s.key]) if s.key in memory else {})
            for s in plan.stages
        ],
        "cells": [
            {"row": cell.row, "seed": cell.seed, "cell": cell.name}
            | ({"control": cell.control.model_dump()} if cell.control else {})
            | ({"params": cell.solved.size} if isinstance(cell.solved, Plan) else {"skipped": cell.refusal})
            for cell in plan.cells
        ],
    }


def _memory_json(forecast: Forecast) -> dict[str, Any]:
    found = {
        "memory_bytes": forecast.estimate.total_bytes,
        "memory_parts": dict(forecast.estimate.parts),
        "micro_batch": forecast.micro,
    }
    return found | ({"warning": forecast.warning} if forecast.warning else {})


def render_plan(
    plan: SweepPlan,
    states: Mapping[str, State],
    why: Mapping[str, str],
    priced: Mapping[str, Price],
    memory: Mapping[str, Forecast],
    artifacts: Artifacts,
) -> RenderableType:
    """The plan as two tables and a bill."""
    table = Table(title=f"plan of {plan.sweep.name}", title_justify="left", box=None, header_style="bold")
    for column in ("stage", "", "key", "tokens", "FLOPs", "GiB", "note"):
        right = column in ("tokens", "FLOPs", "GiB")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for stage in plan.stages:
        key = stage.key
        table.add_row(*_row(stage, states[key], why.get(key, ""), priced.get(key), memory.get(key)))
    skipped = [Text(f"skipped  {cell.name}: {cell.refusal}") for cell in plan.cells if cell.refusal]
    return Group(table, *skipped, *_memory_warnings(plan, memory), Text(_bill(plan, states, priced, artifacts)))


def _memory_warnings(plan: SweepPlan, memory: Mapping[str, Forecast]) -> list[Text]:
    """A line for each that will not fit; stages that share a forecast share the line."""
    labels: dict[str, list[str]] = {}
    for stage in plan.stages:
        if stage.key in memory and memory[stage.key].warning:
            labels.setdefault(memory[stage.key].warning, []).append(stage.label)
    return [
        Text(f"memory  {first}{f' and {len(others)} more' if others else ''}: {warning}", style="yellow")
        for warning, (first, *others) in labels.items()
    ]


def _row(stage: Stage, state: State, why: str, price: Price | None, forecast: Forecast | None) -> list[RenderableType]:
    styles = {State.CACHED: "green", State.WAITING: "yellow"}
    cost = [f"{price.tokens:,}", f"{price.flops:.2e}"] if price else ["", ""]
    word = Text(_WORDS[state], style=styles.get(state, "red"))
    memory = gib(forecast.estimate.total_bytes) if forecast else ""
    return [Text(stage.label), word, stage.key[:8], *cost, memory, Text(why)]


def _bill(plan: SweepPlan, states: Mapping[str, State], priced: Mapping[str, Price], artifacts: Artifacts) -> str:
    waiting = sum(state is State.WAITING for state in states.values())
    cached = sum(state is State.CACHED for state in states.values())
    skipped = sum(bool(cell.refusal) for cell in plan.cells)
    hours = sum(price.worker_hours for price in priced.values())
    twins = sum(bool(cell.control) for cell in plan.cells)
    counted = f"{skipped} skipped, {twins} controls" if twins else f"{skipped} skipped"
    text = f"{len(plan.cells)} cells ({counted}), {cached} stages cached, {waiting} to run"
    if not priced:
        return text
    rate = measured_rate(artifacts)
    basis = f"{rate:.1e} FLOP/s a core, measured in this store" if rate else f"{CPU_FLOPS:.0e} FLOP/s a core, assumed"
    on_gpu = any(stage.execution.gpus for stage in plan.stages if stage.key in priced)
    basis = f"{GPU_FLOPS:.0e} FLOP/s a GPU, assumed" if on_gpu else basis
    tokens, flops = sum(p.tokens for p in priced.values()), sum(p.flops for p in priced.values())
    unit = "GPU-hours" if on_gpu else "worker-hours"
    bill = f"{text}\ntraining: {tokens:,} tokens, {flops:.2e} FLOPs, about {hours:.2g} {unit} at {basis}"
    return bill + (_controls_bill(plan, priced) if twins else "")


def _controls_bill(plan: SweepPlan, priced: Mapping[str, Price]) -> str:
    """What is trained for controls alone."""
    shared = {stage.key for cell in plan.cells if not cell.control for stage in cell.needed}
    own = [price for key, price in priced.items() if key not in shared]
    return f"\nof it for controls: {sum(p.tokens for p in own):,} tokens, {sum(p.flops for p in own):.2e} FLOPs"
