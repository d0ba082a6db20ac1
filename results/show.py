"""One row, or one seed of it, in full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from itertools import groupby
from typing import TYPE_CHECKING, Any

from results.board import build_row, with_verifications
from results.cost import count_users
from results.errors import StoreError
from results.formatting import count, duration, gain_cell, interval, status, value
from results.gains import beside
from results.json_view import column_json, render, row_json, twin_json
from results.load import current
from results.model import Column, Row, Seed, Twin
from results.overall import REFERENCE, with_overall
from results.reader import Reader
from results.record import Record
from results.resampled import item_limits
from results.scores import Evidence, column_of, gather
from results.size_view import COUNTS, size_facts
from results.speed_card import SpeedCard
from results.speed_view import figures, measured
from results.stale import Present, mark_one
from results.statistics import Summary
from results.training import training_facts

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table


@dataclass(frozen=True)
class Shown:
    """A row with every metric it has, main or not; with `ROW#seed`, of that seed alone."""

    row: Row
    columns: tuple[Column, ...]
    twins: tuple[Twin, ...] = ()
    """Its controls, on the same seeds, with the gains in its main metrics."""
    resampled: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Key of a main column -> limits by the bootstrap over items alone (`results.resampled`)."""


def show(reader: Reader, target: str, present: Present | None = None) -> Shown:
    """Find `ROW` or `ROW#seed`; raises `StoreError` with the nearest id when there is none.

    A stage's cost is split over all the cells in the store that use it, as on the board of everything.
    """
    import numpy as np

    with np.errstate(all="ignore"):
        return _show(reader, target, present)


def _show(reader: Reader, target: str, present: Present | None) -> Shown:
    name, _, seed = target.partition("#")
    records = current(reader).records
    own = [record for record in records if record.row == name and seed in ("", str(record.cell.seed))]
    if not own:
        raise StoreError(_unknown(target, [r.id if seed else r.row for r in records]))
    evidence = _evidence(name, own, records, reader)
    users = count_users(records)
    row = mark_one(build_row(own, evidence, users), records, present)
    (row,) = with_verifications([row], own, reader)
    columns = sorted(
        (column for column in evidence.samples if column.when == "final"),
        key=lambda column: (not column.main, column.key),
    )
    seeds = {record.cell.seed for record in own}
    theirs = [r for r in records if r.cell.control and r.cell.control.of == name and r.cell.seed in seeds]
    main = [column for column in columns if column.main]
    twins = _twins(row, main, evidence, theirs, reader, users)
    return Shown(row, tuple(columns), twins, _resampled(main, own, evidence, reader))


def _resampled(
    columns: Sequence[Column], records: Sequence[Record], evidence: Evidence, reader: Reader
) -> dict[str, tuple[float, float]]:
    found = {}
    for column in columns:
        by_seed = {
            r.cell.seed: m for r in records for m in r.measured if r.status == "complete" and column_of(m) == column
        }
        samples = evidence.samples[column]
        if by_seed.keys() == samples.keys() and (
            limits := item_limits([by_seed[s] for s in samples], list(samples.values()), reader)
        ):
            found[column.key] = limits
    return found


def _evidence(name: str, own: Sequence[Record], records: Sequence[Record], reader: Reader) -> Evidence:
    """Of a row, its overall scores included, for which the teacher's own row is read, too."""
    cells = {name: own}
    for reference, theirs in groupby(records, key=lambda record: record.row):
        first, *others = theirs
        if (first.cell.method, first.cell.teacher) == (REFERENCE, own[0].cell.teacher):
            cells.setdefault(reference, [first, *others])
    gathered = {each: gather(of, reader, main_only=each != name) for each, of in cells.items()}
    return with_overall(cells, gathered, reader)[name]


def _twins(
    row: Row,
    columns: Sequence[Column],
    evidence: Evidence,
    records: Sequence[Record],
    reader: Reader,
    users: Mapping[tuple[str, str], int],
) -> tuple[Twin, ...]:
    found, rows = {row.id: evidence}, []
    for name, cells in groupby(records, key=lambda record: record.row):
        own = list(cells)
        found[name] = gather(own, reader, main_only=True)
        rows.append(build_row(own, found[name], users))
    return beside([row], rows, columns, found)


def _unknown(target: str, known: list[str]) -> str:
    if not known:
        return f"no row {target!r}: the store has no results yet; run: weighin run"
    close = get_close_matches(target, sorted(set(known)), n=1, cutoff=0.3)
    return f"no row {target!r}" + (f"; did you mean {close[0]!r}?" if close else "; weighin board lists the rows")


def as_json(shown: Shown) -> str:
    """The row as in the board's JSON, with failures and loss curves."""
    seeds = {
        str(s.seed): {"failure": s.failure.model_dump() if s.failure else None, "curve": list(s.curve)}
        for s in shown.row.seeds
    }
    rules = {each.field: {"rule": each.rule, "about": each.about} for each in COUNTS}
    more: dict[str, Any] = {
        "size_rules": rules,
        "columns": [column_json(c) for c in shown.columns],
        "controls": [twin_json(t) for t in shown.twins],
    }
    more["resampled"] = {key: list(limits) for key, limits in shown.resampled.items()}
    control = shown.row.control.model_dump() if shown.row.control else None
    return render({**row_json(shown.row), **more, "control": control, "training": seeds})


def as_terminal(shown: Shown) -> RenderableType:
    """A rich renderable; texts of records are never read as console markup."""
    from rich.console import Group
    from rich.text import Text

    row = shown.row
    parts: list[RenderableType] = [Text(f"{row.id}  {row.label}", style="bold"), _pairs("cell", _cell(row))]
    if shown.columns:
        parts.append(_measurements(shown))
    if shown.twins:
        parts.append(_pairs("gains (positive is better)", _gains(shown)))
    if row.size:
        parts.append(_pairs("size", size_facts(row.size, row.method)))
    if row.speed:
        parts += _speed(row.speed)
    stages = {name: duration(seconds) for name, seconds in row.cost.worker_s_by_stage.items()}
    total = {"total": f"{duration(row.cost.worker_s)}, {count(row.cost.tokens)} tokens, {count(row.cost.flops)} FLOPs"}
    parts.append(_pairs("cost (worker time, shared stages split)", stages | total))
    parts += [part for seed in row.seeds for part in _seed(seed)]
    return Group(*parts)


def _cell(row: Row) -> dict[str, str]:
    return {
        "teacher": row.teacher,
        "method": row.label,
        "budget": row.budget or "none",
        "recipe": f"{row.recipe} {row.recipe_digest}",
        "sweep": row.sweep,
        "seeds": ", ".join(str(seed.seed) for seed in row.seeds),
        **training_facts(row),
        "status": status(row),
        "verified": row.verified.text if row.verified else "claimed; nobody has evaluated it again (weighin verify)",
    } | ({"control": f"{row.control.kind} of {row.control.of}"} if row.control else {})


def _gains(shown: Shown) -> dict[str, str]:
    """`from distillation, wikitext2.lm_eval.v1 word_ppl` -> the gain, and the control that it is over."""
    pairs = {}
    for twin in shown.twins:
        for column in shown.columns:
            if column.main:
                over = f"over {twin.row.id}" if twin.row.status == "complete" else f"{twin.row.id}: {twin.row.reason}"
                pairs[f"from {twin.gain_from}, {column.protocol} {column.metric}"] = (
                    f"{gain_cell(twin, column)}  {over}"
                )
    return pairs


def _speed(speed: SpeedCard) -> list[RenderableType]:
    from rich.table import Table
    from rich.text import Text

    table = Table(title="speed", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in ("", "factorised", "materialised", "noise"):
        table.add_column(name, justify="right" if name else "left")
    for each in figures(speed):
        table.add_row(Text(each.name, style="dim"), each.factorised, each.materialised, each.noise)
    return [table, Text(measured(speed), style="dim")]


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _measurements(shown: Shown) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title="measurements", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in ("protocol", "metric", "value", "95 % interval", "items resampled", "basis", "before training", "data"):
        table.add_column(name, justify="right" if name in ("value", "before training") else "left")
    for column in shown.columns:
        score = shown.row.scores[column.key]
        summary = score.summary
        basis = f"{summary.basis} ({_many(summary.seeds, 'seed')}, {_many(summary.items, 'item')})"
        before = value(score.before) if score.before else ""
        texts = [column.protocol, f"{column.metric} {column.arrow} {column.unit}", value(summary), interval(summary)]
        texts.append(_limits(summary, shown.resampled.get(column.key)))
        texts += [f"{basis}: {summary.note}" if summary.note else basis, before, column.data]
        table.add_row(*(Text(text) for text in texts))
    return table


def _limits(summary: Summary, limits: tuple[float, float] | None) -> str:
    return interval(replace(summary, low=limits[0], high=limits[1], basis="items only")) if limits else ""


def _seed(seed: Seed) -> list[RenderableType]:
    from rich.text import Text

    facts: dict[str, Any] = {**seed.provenance, **{f"stage {name}": key for name, key in seed.stages.items()}}
    parts: list[RenderableType] = [_pairs(f"seed {seed.seed}: {seed.status}", {k: str(v) for k, v in facts.items()})]
    if seed.failure:
        failure = seed.failure
        parts.append(Text(f"{failure.stage} failed ({failure.failure_class}): {failure.reason}", style="red"))
        parts += [Text(failure.log_tail, style="dim")] if failure.log_tail else []
    return parts


def _pairs(title: str, pairs: dict[str, str]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, text in pairs.items():
        table.add_row(Text(name, style="dim"), Text(text))
    return table
