"""Checks of what every task declares: its name, its metrics, its data."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tasks.conformance.bench import Bench, Check, NotApplicable, shortened
from tasks.interface import DataError, Metric, Protocol

NAME = re.compile(r"[^\s.]+(\.[^\s.]+)+\.v\d\S*")
BEST = {"perplexity": 1.0, "bits": 0.0, "fraction": 1.0, "correlation": 1.0}
"""First word of a metric's unit -> the value that nothing beats."""


def best(metric: Metric) -> float:
    """NotApplicable for a unit whose best value the kit does not know."""
    kind = metric.unit.partition(" ")[0]
    if kind not in BEST:
        raise NotApplicable(
            f"the best value of {metric.name} in {metric.unit!r} is not known; known: {', '.join(BEST)}"
        )
    return BEST[kind]


def name_is_versioned(bench: Bench) -> Iterator[str]:
    name = getattr(bench.task, "name", None)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        yield f"its name is {name!r}; write <data>.<what>.v<version>, such as 'wikitext2.token_ppl.v1'"
    elif bench.registered not in (None, name):
        yield f"it is registered as {bench.registered!r} and calls itself {name!r}"


def metrics_are_declared(bench: Bench) -> Iterator[str]:
    declared: Sequence[Any] = getattr(bench.task, "metrics", ())
    if not declared:
        yield "it declares no metrics; the first one is shown on the board"
    for metric in declared:
        if not isinstance(metric, Metric):
            yield f"metrics holds {metric!r}; write Metric(name=..., unit=..., higher_is_better=...)"
            return
        said: Any = metric.higher_is_better
        if not metric.name or not metric.unit:
            yield f"{metric.name or 'a metric'} has no {'unit' if metric.name else 'name'}"
        if not isinstance(said, bool):
            yield f"{metric.name} does not say whether higher is better, but {said!r}"
    names = [metric.name for metric in declared]
    for name in sorted({each for each in names if names.count(each) > 1}):
        yield f"two metrics are called {name}"


def fingerprint_is_stable(bench: Bench) -> Iterator[str]:
    one, other = deepcopy(bench.task), deepcopy(bench.task)
    try:
        found: Any = one.fingerprint(bench.mirror)
    except DataError as error:
        if bench.own:
            raise
        raise NotApplicable(f"its own data are not at hand: {error}") from None
    if not isinstance(found, str) or not found.strip() or "\n" in found:
        yield f"the fingerprint is {found!r}, should be one line of text"
    for again in (one.fingerprint(bench.mirror), other.fingerprint(bench.mirror)):
        if again != found:
            yield f"the fingerprint changes from call to call: {found}, then {again}"


def missing_data_is_one_line(bench: Bench) -> Iterator[str]:
    """Without mirror and hub a task either says so in `check`, and where it is used, or needs neither of them."""
    with _nothing_at_hand() as empty:
        missing = _refusal(lambda: deepcopy(bench.task).check(empty))
        used = _refusal(lambda: _use(bench, empty))
    for where, error in (("check", missing), ("measuring", used)):
        if error is not None and not isinstance(error, DataError):
            yield f"without its data {where} raises {type(error).__name__}: {_first_line(error)}; raise a DataError"
        elif error is not None and (not str(error).strip() or "\n" in str(error)):
            yield f"without its data {where} says {str(error)!r}; say in one line what is missing and where"
    if missing is None and used is not None:
        yield f"check is silent without the data, but measuring raises {type(used).__name__}: {_first_line(used)}"


def _use(bench: Bench, mirror: Path) -> None:
    task = deepcopy(bench.task)
    if isinstance(task, Protocol):
        shortened(task, getattr(task, "source", None)).measure(bench.model, bench.tokenizer, mirror)
    else:
        bench.classification.examples("validation", mirror)


def _refusal(run: Callable[[], object]) -> Exception | None:
    try:
        run()
    except Exception as error:
        return error
    return None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


@contextmanager
def _nothing_at_hand() -> Iterator[Path]:
    """An empty mirror, and a hub that may not be asked and has left nothing in its cache."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, constants.HF_HUB_CACHE
    with TemporaryDirectory() as empty:
        try:
            constants.HF_HUB_OFFLINE, constants.HF_HUB_CACHE = True, empty
            yield Path(empty)
        finally:
            constants.HF_HUB_OFFLINE, constants.HF_HUB_CACHE = before


CHECKS = (
    Check(title="its name is versioned", run=name_is_versioned),
    Check(title="its metrics have a unit and a direction", run=metrics_are_declared),
    Check(title="its fingerprint is stable", run=fingerprint_is_stable),
    Check(title="missing data is one line", run=missing_data_is_one_line),
)
