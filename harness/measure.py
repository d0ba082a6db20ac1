"""`weighin measure`: one model by any protocols, without a sweep and without a store."""

from __future__ import annotations

import json
import math
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import SpecError
from tasks.interface import DataError, Divisible, Measurement, Protocol, Run
from tasks.local import OfLocalText

if TYPE_CHECKING:
    from rich.console import RenderableType
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TOLD_EVERY_S = 10.0
"""A protocol that takes longer says how far it is this often."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What to measure, and how."""

    model: str
    """A directory (Hugging Face's or a student's) or a hub id."""
    revision: str | None = None
    protocols: Sequence[str] = ()
    all_perplexities: bool = False
    text: Path | None = None
    batch: int | None = None
    mirror: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Line:
    """One metric of one protocol; or a protocol that gave none, and why."""

    protocol: str
    metric: str = ""
    unit: str = ""
    higher_is_better: bool | None = None
    value: float | None = None
    low: float | None = None
    """Of the 95 % interval over items."""
    high: float | None = None
    items: int = 0
    tokens: int | None = None
    """Scored ones, where the protocol counts them."""
    seconds: float | None = None
    data: str = ""
    """Fingerprint."""
    details: Mapping[str, Any] = field(default_factory=dict)
    protocol_facts: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""


def measure(asked: Asked, *, as_json: bool) -> int:
    """Print what each protocol finds; 1 when one that was asked for by name found nothing, or none did, else 0.

    Raises:
        SpecError, MethodError, DataError: no such model, protocol or data; nothing is measured then.
    """
    from harness.boards import drawn

    warnings.filterwarnings("ignore")
    protocols, lines = _available(asked)
    if protocols:
        from harness.any_model import load_model

        model, tokenizer = load_model(asked.model, asked.revision, asked.mirror)
        with redirect_stdout(sys.stderr):
            for protocol in protocols:
                lines += _lines(protocol, model, tokenizer, asked)
    print(json.dumps([vars(line) for line in lines], indent=1) if as_json else drawn(as_table(lines)), end="")
    measured = {line.protocol for line in lines if not line.problem}
    return 0 if measured and measured >= set(_asked_by_name(asked)) else 1


def _available(asked: Asked) -> tuple[list[Protocol], list[Line]]:
    """The protocols whose data can be had, and a line for each other one that `--all` would have measured."""
    from tasks import registry

    if asked.mirror is not None and not asked.mirror.is_dir():
        raise SpecError(f"--mirror {asked.mirror}: no such directory")
    tasks = {name: registry.load(name) for name in _names(asked)}
    if asked.text and not any(isinstance(task, OfLocalText) for task in tasks.values()):
        raise SpecError("--text: is for local.* protocols, such as --protocol local.token_ppl.v1")
    by_name = _asked_by_name(asked)
    found, lines = [], []
    for name, task in tasks.items():
        if not isinstance(task, Protocol):
            raise SpecError(f"--protocol {name}: it is fine-tuned; `measure` takes a model as it is")
        if isinstance(task, OfLocalText) and asked.text:
            task = task.reading(asked.text)
        try:
            task.check(asked.mirror)
        except DataError as error:
            if name in by_name:
                raise
            lines.append(Line(protocol=name, protocol_facts=task.describe(), problem=str(error)))
        else:
            found.append(task)
    return found, lines


def _names(asked: Asked) -> list[str]:
    """Those asked for; of a text alone, those that measure one."""
    names = [*_asked_by_name(asked), *(perplexities() if asked.all_perplexities else ())]
    if asked.text and not names:
        names = [name for name in perplexities() if name.startswith("local.")]
    if not names:
        raise SpecError("measure: say by what: --protocol NAME (`weighin tasks` lists them), --text PATH, or --all")
    return list(dict.fromkeys(names))


def _asked_by_name(asked: Asked) -> list[str]:
    """In full: one of lm-eval's tags or groups may be several."""
    from tasks import registry

    return [name for each in asked.protocols for name in registry.expand(each)]


def perplexities() -> list[str]:
    """Names of the protocols whose main metric is a perplexity, of each the newest version."""
    from results.items import scale_of
    from tasks import registry

    newest: dict[str, tuple[int, str]] = {}
    for name in registry.names():
        stem, _, version = name.rpartition(".v")
        newest[stem] = max(newest.get(stem, (0, "")), (int(version), name))
    tasks = {name: registry.load(name) for _, name in newest.values()}
    return sorted(n for n, t in tasks.items() if isinstance(t, Protocol) and scale_of(t.metrics[0].name) == "log")


def _lines(protocol: Protocol, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, asked: Asked) -> list[Line]:
    started = time.perf_counter()
    try:
        if isinstance(protocol, Divisible):
            run = Run(batch=asked.batch, progress=Told(protocol.name))
            found = protocol.measure(model, tokenizer, asked.mirror, run)
        else:
            print(f"{protocol.name}: measuring", file=sys.stderr)
            found = protocol.measure(model, tokenizer, asked.mirror)
        for metric, value in found.metrics.items():
            if not math.isfinite(value):
                raise DataError(f"{metric} is {value}")
    except DataError as error:
        return [Line(protocol=protocol.name, protocol_facts=protocol.describe(), problem=str(error))]
    seconds = time.perf_counter() - started
    data = protocol.fingerprint(asked.mirror)
    return [_line(protocol, place, found, seconds, data) for place in range(len(protocol.metrics))]


def _line(protocol: Protocol, place: int, found: Measurement, seconds: float, data: str) -> Line:
    """The metric with its interval over items, by the rule of the board."""
    import numpy as np

    from results.items import sample_of
    from results.statistics import summarise

    metric = protocol.metrics[place]
    columns = {name: np.asarray(values) for name, values in found.items.items()}
    enough = len(columns.get("item", ())) > 1
    summary = summarise([sample_of(metric.name, found.metrics[metric.name], columns if enough else None)])
    return Line(
        protocol=protocol.name,
        metric=metric.name,
        unit=metric.unit,
        higher_is_better=metric.higher_is_better,
        value=found.metrics[metric.name],
        low=summary.low,
        high=summary.high,
        items=len(columns.get("item", ())),
        tokens=int(columns["tokens"].sum()) if "tokens" in columns else None,
        seconds=seconds,
        data=data,
        details=found.details,
        protocol_facts=protocol.describe(),
    )


class Told:
    """Progress of a protocol on standard error, for one that takes longer than a moment."""

    def __init__(self, name: str) -> None:
        self.name, self.started = name, time.monotonic()
        self.last = self.started

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self.last < TOLD_EVERY_S:
            return
        self.last = now
        left_s = (now - self.started) * (total - done) / done
        print(f"{self.name}: {done / total:.0%}, {left_s:.0f} s left", file=sys.stderr, flush=True)


def as_table(lines: Sequence[Line]) -> RenderableType:
    """One line per metric; below, what a reader would not expect of a number, and why there is none."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold")
    for column in ("protocol", "metric", "value", "95 % over items", "unit", "items", "tokens", "seconds"):
        right = column in ("value", "items", "tokens", "seconds")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for line in (line for line in lines if line.value is not None):
        interval = "" if line.low is None else f"{line.low:.5g}-{line.high:.5g}"
        tokens = "" if line.tokens is None else f"{line.tokens:,}"
        arrow = "↑" if line.higher_is_better else "↓"
        table.add_row(
            line.protocol, f"{line.metric} {arrow}", f"{line.value:.6g}", interval, line.unit, f"{line.items:,}",
            tokens, f"{line.seconds:.1f}",
        )  # fmt: skip
    notes = dict.fromkeys((each.protocol, str(each.details["note"])) for each in lines if "note" in each.details)
    problems = [(each.protocol, each.problem) for each in lines if each.problem]
    below = [Text(f"{name}: {what}", style="dim") for name, what in notes]
    return Group(table, *below, *(Text(f"not measured  {name}: {what}") for name, what in problems))
