"""Checks of protocols: what they find of models of which the answer is known, twice, and in other batches."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from inspect import signature
from math import isclose, isfinite, log
from typing import Any

import numpy as np
import torch

from tasks.conformance import models
from tasks.conformance.bench import Bench, Check, NotApplicable
from tasks.conformance.contract import best
from tasks.interface import Measurement

BATCHES = (1, 4, 16)
BATCH_FIELDS = ("batch_windows", "batch_requests")
ROUNDING = 1e-5
"""Relative difference that other batches may make."""
COUNTS = ("tokens", "words", "bytes")


def items_are_a_table(bench: Bench) -> Iterator[str]:
    found = bench.measured
    declared, given = [each.name for each in bench.task.metrics], list(found.metrics)
    if sorted(declared) != sorted(given):
        yield f"it declares {', '.join(declared)} and measures {', '.join(given)}"
    for name, value in found.metrics.items():
        if not isinstance(value, float) or not isfinite(value):
            yield f"{name} is {value!r}, should be a finite float"
    lengths = {name: len(column) for name, column in found.items.items()}
    if len(set(lengths.values())) > 1:
        yield f"the columns of its items have different lengths: {lengths}"
    if found.items and "item" not in found.items:
        yield "its items have no column `item`, which tells them apart"
    elif len(set(found.items.get("item", ()))) < len(found.items.get("item", ())):
        yield "two of its items are called the same"
    for name in (*COUNTS, "nll"):
        bad = [value for value in found.items.get(name, ()) if not (isfinite(value) and value >= 0)]
        if bad:
            yield f"the column {name} holds {bad[0]}, should be finite and not negative"


def twice_is_the_same(bench: Bench) -> Iterator[str]:
    """Under other global random states."""
    state = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(12345)
            np.random.seed(12345)
            random.seed(12345)
            again = bench.measure()
    finally:
        np.random.set_state(state[0])
        random.setstate(state[1])
    if difference := _first_difference(bench.measured, again, tolerance=0):
        yield f"two measurements of one model differ: {difference}"


def batches_change_nothing(bench: Bench) -> Iterator[str]:
    found = {size: _in_batches(bench, size) for size in BATCHES}
    for size in BATCHES[1:]:
        if difference := _first_difference(found[1], found[size], tolerance=ROUNDING):
            yield f"a batch of {size} gives another result than one of 1: {difference}"


def _in_batches(bench: Bench, size: int) -> Measurement:
    """Where `measure` takes a `run`, that says the batch; else a field of the task."""
    task: Any = bench.protocol
    if run := signature(task.measure).parameters.get("run"):
        found: Measurement = task.measure(
            bench.model, bench.tokenizer, bench.mirror, run=replace(run.default, batch=size)
        )
        return found
    fields = [name for name in BATCH_FIELDS if hasattr(task, name)]
    if not fields:
        raise NotApplicable(f"it has no batch size: no `run` of its measure, no {' or '.join(BATCH_FIELDS)}")
    vars(task)[fields[0]] = size
    return bench.measure(task)


def _first_difference(one: Measurement, other: Measurement, tolerance: float) -> str | None:
    """In a metric or an item, or None."""
    for name, value in one.metrics.items():
        if not _close(value, other.metrics.get(name), tolerance):
            return f"{name} is {value!r} and {other.metrics.get(name)!r}"
    if one.items.keys() != other.items.keys():
        return f"items have {', '.join(one.items)} and {', '.join(other.items)}"
    for name, column in one.items.items():
        if len(column) != len(other.items[name]):
            return f"{len(column)} and {len(other.items[name])} items"
        for place, (a, b) in enumerate(zip(column, other.items[name], strict=True)):
            if not _close(a, b, tolerance):
                return f"{name} of item {place} is {a!r} and {b!r}"
    return None


def _close(a: Any, b: Any, tolerance: float) -> bool:
    if tolerance and isinstance(a, float) and isinstance(b, float):
        return isclose(a, b, rel_tol=10 * tolerance, abs_tol=tolerance)
    return bool(a == b)


def oracle_is_perfect(bench: Bench) -> Iterator[str]:
    for metric in bench.task.metrics:
        value = bench.known.metrics[metric.name]
        if not abs(value - best(metric)) <= 1e-4:
            yield (
                f"{metric.name} of a model that knows every next token is {value:.6g}, should be {best(metric):g};"
                " is each token scored by the logits of the one before it?"
            )


def uniform_is_at_chance(bench: Bench) -> Iterator[str]:
    """The nll of every token is ln V, and a perplexity per token is V, the size of the vocabulary."""
    items, nats = bench.guessed.items, log(models.VOCAB)
    for place, nll in enumerate(items["nll"]):
        tokens = items["tokens"][place] if "tokens" in items else round(nll / nats)
        if not isclose(nll, tokens * nats, rel_tol=1e-5):
            yield (
                f"the nll of item {place} of a model that guesses is {nll:.6g}, should be ln {models.VOCAB} ="
                f" {nats:.6g} for each of its {tokens} tokens"
            )
            break
    for metric in bench.task.metrics:
        value = bench.guessed.metrics[metric.name]
        if metric.unit.startswith("perplexity per token") and not isclose(value, models.VOCAB, rel_tol=1e-4):
            yield f"{metric.name} of a model that guesses is {value:.6g}; the vocabulary has {models.VOCAB} tokens"


def direction_is_right(bench: Bench) -> Iterator[str]:
    yield from better_is_better(bench, bench.known.metrics, bench.guessed.metrics)


def better_is_better(bench: Bench, knows: Mapping[str, float], guesses: Mapping[str, float]) -> Iterator[str]:
    """Each metric declares the direction in which one that knows lies of one that guesses."""
    for metric in bench.task.metrics:
        up = knows[metric.name] > guesses[metric.name]
        if knows[metric.name] == guesses[metric.name]:
            yield f"{metric.name} is {knows[metric.name]:.6g} for one that knows and for one that guesses"
        elif up != metric.higher_is_better:
            yield (
                f"{metric.name} says that {'higher' if metric.higher_is_better else 'lower'} is better; one that knows"
                f" has {knows[metric.name]:.6g}, one that guesses {guesses[metric.name]:.6g}"
            )


CHECKS = (
    Check(title="it measures what it declares, and items", run=items_are_a_table),
    Check(title="two measurements are equal bit for bit", run=twice_is_the_same),
    Check(title="batches change nothing", run=batches_change_nothing),
    Check(title="a model that knows is perfect", run=oracle_is_perfect),
    Check(title="a model that guesses is at chance", run=uniform_is_at_chance),
    Check(title="knowing is better than guessing", run=direction_is_right),
)
