"""What two rows differ in: configuration, code, protocol, data, hardware, numbers, and the items behind them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from results.errors import StoreError
from results.item_changes import Documents, Flips, documents, flips
from results.items import Sample
from results.load import choose
from results.model import Column
from results.reader import Reader
from results.record import Measured, Record
from results.scores import Evidence, gather
from results.statistics import Difference, compare

STAGES_OF_TASKS = ("evaluate", "finetune")
EXECUTION = ("python", "hardware", "host")


@dataclass(frozen=True, kw_only=True)
class Change:
    """One thing that is otherwise in B than in A; None where it is absent."""

    what: str
    a: Any
    b: Any


@dataclass(frozen=True, kw_only=True)
class MetricChange:
    """A metric that both have, by the same protocol on the same data."""

    column: Column
    a: float
    """Mean over the seeds; of a perplexity the geometric one."""
    b: float
    seeds: tuple[int, ...]
    """Those that both have."""
    difference: Difference
    """a - b, paired over seeds and items; of a perplexity ln(a / b)."""

    @property
    def better(self) -> str:
        """`a`, `b`, or nothing where the interval does not say."""
        low, high = self.difference.low, self.difference.high
        if low is None or high is None or low <= 0 <= high:
            return ""
        return "a" if (low > 0) == self.column.higher_is_better else "b"


@dataclass(frozen=True, kw_only=True)
class Diff:
    """Everything that two rows, or two seeds of rows, differ in."""

    a: str
    b: str
    configuration: Sequence[Change]
    code: Sequence[Change]
    protocols: Sequence[Change]
    execution: Sequence[Change]
    figures: Sequence[Change]
    """Sizes that were counted, status."""
    metrics: Sequence[MetricChange]
    flips: Sequence[Flips]
    documents: Sequence[Documents]


def diff(reader_a: Reader, a: str, reader_b: Reader, b: str) -> Diff:
    """Compare `ROW` or `ROW#seed` of one store with one of the same or another.

    Raises:
        StoreError: there is no such row, with the nearest id.
    """
    mine, theirs = _records(reader_a, a), _records(reader_b, b)
    evidence = [gather(records, reader, main_only=False) for records, reader in ((mine, reader_a), (theirs, reader_b))]
    alike = _alike(a, b)
    metrics = list(_metrics(*evidence, alike=alike))
    pairs = list(_measured_pairs(mine, theirs, alike=alike))
    return Diff(
        a=a,
        b=b,
        configuration=list(_changes(_configuration(mine[0]), _configuration(theirs[0]))),
        code=list(_changes(_code(mine[0], reader_a), _code(theirs[0], reader_b))),
        protocols=list(_changes(_protocols(mine), _protocols(theirs))),
        execution=list(_changes(_execution(mine[0]), _execution(theirs[0]))),
        figures=list(_changes(_figures(mine), _figures(theirs))),
        metrics=metrics,
        flips=[each for group in pairs if (each := flips(group, reader_a, reader_b))],
        documents=[found for group in pairs if (found := documents(group, reader_a, reader_b))],
    )


def _records(reader: Reader, target: str) -> list[Record]:
    row, _, seed = target.partition("#")
    known = choose(reader.records())
    found = [record for record in known if record.row == row and seed in ("", str(record.cell.seed))]
    if not found:
        close = get_close_matches(target, sorted({each.id if seed else each.row for each in known}), n=1, cutoff=0.3)
        hint = f"did you mean {close[0]!r}?" if close else "weighin board lists the rows"
        raise StoreError(f"no row {target!r}; {hint}")
    return found


def _alike(a: str, b: str) -> bool:
    """False for two single seeds of different numbers, which are compared with each other all the same."""
    seeds = [target.partition("#")[2] for target in (a, b)]
    return not all(seeds) or seeds[0] == seeds[1]


def _changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Change]:
    for what in dict.fromkeys([*a, *b]):
        if a.get(what) != b.get(what):
            yield Change(what=what, a=a.get(what), b=b.get(what))


def _configuration(record: Record) -> dict[str, Any]:
    """The cell, and its sweep where the record has it, key by key."""
    cell = record.cell
    found: dict[str, Any] = {name: getattr(cell, name) for name in ("teacher", "method", "budget", "recipe", "seed")}
    found["control"] = cell.control.kind if cell.control else None
    found |= {f"field {name}": value for name, value in sorted(cell.fields.items())}
    sweep = record.provenance.get("sweep")
    if isinstance(sweep, Mapping):
        rest = {name: sweep[name] for name in sweep if name not in ("methods", "budgets", "seeds", "controls", "tasks")}
        found |= dict(_flat(rest))
    else:
        found["recipe_digest"] = cell.recipe_digest
    return found


def _flat(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, each in value.items():
            yield from _flat(each, f"{at}.{name}" if at else str(name))
    elif isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
        for number, each in enumerate(value):
            yield from _flat(each, f"{at}.{number}")
    else:
        yield at, value


def _code(record: Record, reader: Reader) -> dict[str, Any]:
    """Commit, library versions, and of each stage the modules that its key is made of, where its manifest is there."""
    provenance = record.provenance
    found: dict[str, Any] = {name: provenance.get(name) for name in ("commit", "dirty")}
    versions = provenance.get("versions")
    found |= {f"version {name}": each for name, each in versions.items()} if isinstance(versions, Mapping) else {}
    digests = provenance.get("code")
    for label, key in record.stages.items():
        modules = _modules(reader, label, key)
        if modules is not None:
            found |= {f"module {name}": each[:12] for name, each in modules.items()}
        elif isinstance(digests, Mapping) and label in digests:
            found[f"code of {label}"] = digests[label]
    return found


def _modules(reader: Reader, label: str, key: str) -> Mapping[str, str] | None:
    for stage in (label, *STAGES_OF_TASKS):
        try:
            code = json.loads(reader.read_bytes(f"artifacts/{stage}/{key}/manifest.json"))["parts"]["code"]
            return {str(name): str(each) for name, each in code.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return None


def _protocols(records: Sequence[Record]) -> dict[str, Any]:
    """What measured: a protocol's data and how its models were fine-tuned."""
    found: dict[str, Any] = {}
    for record in records:
        for each in record.measured:
            found[f"{each.protocol} data"] = each.data
            if each.settings:
                found[f"{each.protocol} fine-tuning"] = each.settings
    return found


def _execution(record: Record) -> dict[str, Any]:
    provenance = record.provenance
    found: dict[str, Any] = {name: provenance.get(name) for name in EXECUTION}
    execution = provenance.get("execution")
    return found | (dict(_flat(execution, "execution")) if isinstance(execution, Mapping) else {})


def _figures(records: Sequence[Record]) -> dict[str, Any]:
    first = records[0]
    size = first.size.model_dump() if first.size else {}
    statuses = ", ".join(dict.fromkeys(f"{each.status} {each.reason}".strip() for each in records))
    return {"status": statuses, "seeds": [each.cell.seed for each in records]} | size


def _metrics(a: Evidence, b: Evidence, *, alike: bool) -> Iterator[MetricChange]:
    columns = sorted(set(a.samples) & set(b.samples), key=lambda column: (not column.main, column.key))
    for column in columns:
        mine, theirs = a.samples[column], b.samples[column]
        values = a.values[column], b.values[column]
        if not alike:
            mine, theirs = _as_one_seed(mine), _as_one_seed(theirs)
        yield MetricChange(
            column=column,
            a=_mean(mine, values[0]),
            b=_mean(theirs, values[1]),
            seeds=tuple(sorted(set(values[0]) & set(values[1]))),
            difference=compare(mine, theirs),
        )


def _as_one_seed(samples: Mapping[int, Sample]) -> dict[int, Sample]:
    return {0: next(iter(samples.values()))}


def _mean(samples: Mapping[int, Sample], values: Mapping[int, float]) -> float:
    from results.statistics import summarise

    return summarise(list(samples.values())).value if len(values) > 1 else next(iter(values.values()))


def _measured_pairs(
    a: Sequence[Record], b: Sequence[Record], *, alike: bool
) -> Iterator[list[tuple[int, Measured, Measured]]]:
    """Per column of a main metric that both have: (seed, A's measurement, B's) of the common seeds."""
    groups: dict[tuple[str, ...], list[tuple[int, Measured, Measured]]] = {}
    theirs = {(_column(each), record.cell.seed if alike else 0): each for record in b for each in record.measured}
    for record in a:
        seed = record.cell.seed if alike else 0
        for each in record.measured:
            if each.main and each.when == "final" and (other := theirs.get((_column(each), seed))):
                groups.setdefault(_column(each), []).append((seed, each, other))
    yield from groups.values()


def _column(measured: Measured) -> tuple[str, ...]:
    return measured.protocol, measured.metric, measured.when, measured.data
