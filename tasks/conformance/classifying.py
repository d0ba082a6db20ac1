"""Checks of classifications: their examples, and what they score for one that knows and for one that guesses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite, sqrt

import numpy as np

from tasks.conformance.bench import Bench, Check
from tasks.conformance.contract import best
from tasks.conformance.measuring import better_is_better
from tasks.interface import Examples

LIMIT = 20
BAND = 5.0
"""Standard deviations by which a guess may miss chance."""


def examples_are_labelled(bench: Bench) -> Iterator[str]:
    for split, examples in (("train", bench.train), ("validation", bench.validation)):
        sizes = {len(examples.first), len(examples.labels), *([len(examples.second)] if examples.second else [])}
        if len(sizes) > 1 or not len(examples):
            yield f"{split} has {len(examples.first)} texts and {len(examples.labels)} labels"
            continue
        for place, label in enumerate(examples.labels):
            if problem := _label_problem(label, bench.classification.num_labels):
                yield f"label {place} of {split} is {label!r}; {problem}"
                break
        if len(set(examples.labels)) < 2:
            yield f"all labels of {split} are {examples.labels[0]!r}"


def _label_problem(label: float, num_labels: int) -> str:
    if num_labels == 1:
        return "" if isfinite(label) else "num_labels = 1 is a regression, labels are finite numbers"
    whole = label == int(label) if isfinite(label) else False
    return "" if whole and 0 <= label < num_labels else f"num_labels = {num_labels} allows 0 to {num_labels - 1}"


def examples_are_fixed(bench: Bench) -> Iterator[str]:
    validation = bench.validation
    if bench.classification.examples("validation", bench.mirror) != validation:
        yield "two readings of validation give other examples, or another order"
    fewer = bench.classification.examples("validation", bench.mirror, LIMIT)
    if len(fewer) != min(LIMIT, len(validation)):
        yield f"limit = {LIMIT} gives {len(fewer)} of {len(validation)} examples"
    if Counter(_rows(fewer)) - Counter(_rows(validation)):
        yield f"limit = {LIMIT} gives an example that is not in validation"
    if bench.classification.examples("validation", bench.mirror, LIMIT) != fewer:
        yield f"two readings with limit = {LIMIT} give other examples; draw from a generator with a fixed seed"


def _rows(examples: Examples) -> list[tuple[str, str | None, float]]:
    second: Sequence[str | None] = examples.second or [None] * len(examples)
    return list(zip(examples.first, second, examples.labels, strict=True))


def scores_are_fixed(bench: Bench) -> Iterator[str]:
    guesses = guess(bench)
    found = bench.classification.score(guesses, bench.validation.labels)
    declared = [metric.name for metric in bench.task.metrics]
    if sorted(found) != sorted(declared):
        yield f"it declares {', '.join(declared)} and scores {', '.join(found)}"
    for name, value in found.items():
        if not isfinite(value):
            yield f"{name} of guesses is {value}"
    if bench.classification.score(guesses, bench.validation.labels) != found:
        yield "the same predictions get another score the second time"


def oracle_is_perfect(bench: Bench) -> Iterator[str]:
    for metric in bench.task.metrics:
        value = _known(bench)[metric.name]
        if not abs(value - best(metric)) <= 1e-6:
            yield f"{metric.name} of predictions that equal the labels is {value:.6g}, should be {best(metric):g}"


def guesses_are_at_chance(bench: Bench) -> Iterator[str]:
    """No better than a constant answer: the share of the largest class, F1 of a constant 1, or no correlation."""
    guessed = bench.classification.score(guess(bench), bench.validation.labels)
    slack = BAND / sqrt(len(bench.validation))
    for metric in bench.task.metrics:
        most = (_constant_share(bench.validation.labels) if metric.unit.startswith("fraction") else 0.0) + slack
        if metric.unit.startswith(("fraction", "correlation")) and not guessed[metric.name] <= most:
            yield f"{metric.name} of guesses is {guessed[metric.name]:.3f}, should be at most {most:.3f}"


def _constant_share(labels: Sequence[float]) -> float:
    """The most that a constant answer gets: as accuracy the largest class's share, as F1 of class 1 2 p / (1 + p)."""
    shares = {label: count / len(labels) for label, count in Counter(labels).items()}
    ones = shares.get(1, 0.0)
    return max(*shares.values(), 2 * ones / (1 + ones))


def direction_is_right(bench: Bench) -> Iterator[str]:
    yield from better_is_better(bench, _known(bench), bench.classification.score(guess(bench), bench.validation.labels))


def _known(bench: Bench) -> Mapping[str, float]:
    return bench.classification.score(list(bench.validation.labels), bench.validation.labels)


def guess(bench: Bench) -> list[float]:
    """A prediction for each validation example, drawn without a look at it; the same each time."""
    draw, number = np.random.Generator(np.random.Philox(0)), len(bench.validation)
    if bench.classification.num_labels == 1:
        low, high = min(bench.validation.labels), max(bench.validation.labels)
        return [float(value) for value in low + (high - low) * draw.random(number)]
    return [int(value) for value in draw.random(number) * bench.classification.num_labels]


CHECKS = (
    Check(title="its examples are labelled", run=examples_are_labelled),
    Check(title="its examples are always the same", run=examples_are_fixed),
    Check(title="it scores what it declares, always the same", run=scores_are_fixed),
    Check(title="predictions that equal the labels are perfect", run=oracle_is_perfect),
    Check(title="guesses are at chance", run=guesses_are_at_chance),
    Check(title="knowing is better than guessing", run=direction_is_right),
)
