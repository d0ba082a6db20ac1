"""Which numbers a task of lm-eval reports, with unit and direction, told from its configuration.

lm-eval calls a number `metric,filter`; the filter `none`, which changes nothing, is left out here. A metric without a
direction, neither in the task nor in lm-eval's registry, could not be ranked and is no column.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from tasks.interface import Metric
from tasks.lm_eval_index import Config, root

UNITS = {
    "acc": "fraction",
    "em": "fraction",
    "exact_match": "fraction",
    "f1": "fraction",
    "mcc": "correlation",
    "perplexity": "perplexity per target",
    "word_perplexity": "perplexity per word",
    "byte_perplexity": "perplexity per byte",
    "bits_per_byte": "bits per byte",
    "bleu": "points of 100",
    "chrf": "points of 100",
    "ter": "points of 100",
    "brier_score": "squared error",
}
"""`acc_norm` and other kinds of `acc` have its unit; what is not here is a `score`."""


DEFAULTS = {
    "loglikelihood": ("perplexity", "acc"),
    "loglikelihood_rolling": ("word_perplexity", "byte_perplexity", "bits_per_byte"),
    "multiple_choice": ("acc", "acc_norm"),
    "generate_until": ("exact_match",),
}
"""Output type -> metrics of a task that lists none."""


def metrics_of(config: Config) -> tuple[Metric, ...]:
    """The metrics of a task that have a direction, in its own order."""
    filters = [each["name"] for each in config.get("filter_list") or ()] or ["none"]
    found = [(name, up) for name, up in _declared(config) if up is not None]
    return tuple(metric(full_name(name, each), name, up) for name, up in found for each in filters)


def group_metrics(aggregates: Any, tasks: Sequence[Sequence[Metric]]) -> tuple[Metric, ...]:
    """The metrics that a group averages over its tasks: those of which they agree on the direction."""
    known: dict[str, set[Metric]] = {}
    for each in (metric for metrics in tasks for metric in metrics):
        known.setdefault(each.name, set()).add(each)
    found: list[Metric] = []
    for aggregate in aggregates if isinstance(aggregates, list) else [aggregates]:
        name, filters = aggregate["metric"], aggregate.get("filter_list")
        filters = [filters] if isinstance(filters, str) else filters
        wanted = [full_name(name, each) for each in filters or ()]
        wanted = wanted or [each for each in known if each.partition(",")[0] == name]
        found += [next(iter(known[each])) for each in wanted if len(known.get(each, ())) == 1]
    return tuple(found)


def full_name(name: str, filter_: str) -> str:
    """`exact_match,strict-match`; `acc` for the filter `none`."""
    return name if filter_ == "none" else f"{name},{filter_}"


def metric(name: str, plain: str, higher_is_better: bool) -> Metric:
    """With the unit of the `plain` metric, the one without a filter."""
    unit = UNITS.get(plain) or ("fraction" if plain.startswith("acc") else "score")
    return Metric(name=name, unit=unit, higher_is_better=higher_is_better)


def _declared(config: Config) -> Iterator[tuple[str, bool | None]]:
    """Name and direction of each metric that the configuration lists, or else of its output type's own."""
    listed: Any = config.get("metric_list")
    if listed is None:
        listed = [{"metric": name} for name in DEFAULTS[config.get("output_type", "generate_until")]]
    for each in listed:
        name = str(each["metric"]).removeprefix("!function ").rpartition(".")[2]
        given = each.get("higher_is_better", directions().get(name))
        yield name, given if isinstance(given, bool) else None


@cache
def directions() -> Mapping[str, bool | None]:
    """Metric -> `higher_is_better`, read from the decorators in lm-eval's source: importing it takes seconds."""
    source = (root().parent / "api" / "metrics.py").read_text(encoding="utf-8")
    found = {}
    for node in ast.parse(source).body:
        for decorator in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
            if isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "register_metric":
                said = {word.arg: ast.literal_eval(word.value) for word in decorator.keywords}
                found[said["metric"]] = said.get("higher_is_better")
    return found
