"""What changed since the last board: rows, how they ended, values beyond their noise, and ranks.

Both boards are compared as JSON (`weighin board --format json`), so that a file kept from then is enough. A value moved
beyond noise when old and new differ by more than the half-widths of their 95 % intervals, added in quadrature; of a
perplexity on the scale of its logarithm. Where one has no interval, by more than 1e-5 of it, what two runs of the same
thing agree to.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import hypot, log
from typing import Any

from results.errors import StoreError
from results.items import scale_of
from results.json_view import FORMAT
from results.reader import Reader
from results.record import Record

EQUAL = 1e-5
KINDS = ("new row", "gone row", "status", "value", "rank", "new column", "gone column")
"""In the order in which they are told."""
Data = Mapping[str, Any]
Place = tuple[str, str, str]
"""Teacher, budget, row."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One difference between two boards."""

    kind: str
    """One of `KINDS`."""
    teacher: str
    budget: str
    row: str = ""
    method: str = ""
    column: str = ""
    """Protocol and metric."""
    old: Any = None
    new: Any = None
    better: bool | None = None
    """Of a value that moved."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Everything that changed, and how many values moved within their noise."""

    since: str
    found: Sequence[Change]
    within_noise: int


class Before:
    """A store as it was: the records written before a time, which is text like theirs (`2026-01-31T12:00:00Z`)."""

    def __init__(self, reader: Reader, time: str) -> None:
        self.reader, self.time = reader, time

    def records(self) -> list[Record]:
        return [each for each in self.reader.records() if str(each.provenance.get("created_at", "")) < self.time]

    def read_bytes(self, name: str, /) -> bytes:
        return self.reader.read_bytes(name)

    def home(self, record: Record) -> Reader:
        """Where a record's files lie, which of several stores they are in."""
        ask = getattr(self.reader, "home", None)
        found: Reader = ask(record) if ask is not None else self.reader
        return found


def read_board(text: str, where: str) -> Data:
    """A board kept as JSON; `StoreError` in one line where it is none, or of another format."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StoreError(
            f"{where}: not JSON ({error}); keep a board with: weighin board --format json -o FILE"
        ) from error
    if not isinstance(data, dict) or "format" not in data or not isinstance(data.get("tabs"), list):
        raise StoreError(f"{where}: not a board; keep one with: weighin board --format json -o FILE")
    if data["format"] != FORMAT:
        raise StoreError(f"{where}: a board of format {data['format']}; this weighin compares format {FORMAT}")
    return data


def changes(old: Data, new: Data, since: str) -> Changes:
    """What is different in `new`; both are boards as JSON. `StoreError` where `old` lacks what a board has."""
    try:
        before, after = _rows(old), _rows(new)
        found = [*_came_and_went(before, after), *_columns(old, new)]
        within = 0
        for place in sorted(before.keys() & after.keys()):
            moved, noise = _of_row(place, before[place], after[place])
            found += moved
            within += noise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{since}: not a whole board ({type(error).__name__}: {error})") from error
    found.sort(key=lambda each: (KINDS.index(each.kind), each.teacher, each.budget, each.row, each.column))
    return Changes(since=since, found=tuple(found), within_noise=within)


@dataclass(frozen=True)
class _Placed:
    """A row on its tab, with the tab's columns."""

    row: Data
    columns: Mapping[str, Data]


def _rows(board: Data) -> dict[Place, _Placed]:
    """References stand on every tab and count once."""
    found: dict[Place, _Placed] = {}
    for tab in board["tabs"]:
        columns = {column["key"]: column for column in tab["columns"]}
        for row in tab["references"]:
            found.setdefault((tab["teacher"], "", row["id"]), _Placed(row, columns))
        for group in tab["groups"]:
            for row in group["rows"]:
                found[tab["teacher"], tab["budget"], row["id"]] = _Placed(row, columns)
    return found


def _came_and_went(before: Mapping[Place, _Placed], after: Mapping[Place, _Placed]) -> Iterator[Change]:
    for kind, here, there in (("new row", after, before), ("gone row", before, after)):
        for place in here.keys() - there.keys():
            ended = here[place].row["status"]
            old, new = (None, ended) if kind == "new row" else (ended, None)
            yield _change(kind, place, here[place].row, old=old, new=new)


def _columns(old: Data, new: Data) -> Iterator[Change]:
    """Of teachers and budgets that both boards have."""
    before, after = (
        {(tab["teacher"], tab["budget"]): {c["key"]: _title(c) for c in tab["columns"]} for tab in board["tabs"]}
        for board in (old, new)
    )
    for teacher, budget in before.keys() & after.keys():
        was, now = before[teacher, budget], after[teacher, budget]
        for kind, here, there in (("new column", now, was), ("gone column", was, now)):
            for key in here.keys() - there.keys():
                yield Change(kind=kind, teacher=teacher, budget=budget, column=here[key])


def _of_row(place: Place, old: _Placed, new: _Placed) -> tuple[list[Change], int]:
    """What changed of a row, and how many of its values moved within their noise."""
    found, within = [], 0
    states = [_state(each.row) for each in (old, new)]
    if states[0] != states[1]:
        found.append(_change("status", place, new.row, old=states[0], new=states[1]))
    for key in sorted(old.row["quality"].keys() & new.row["quality"].keys() & new.columns.keys()):
        column, was, now = new.columns[key], old.row["quality"][key], new.row["quality"][key]
        if was["value"] != now["value"]:
            if _beyond_noise(was, now, scale_of(column["metric"], column["protocol"]) == "log"):
                better = None
                if None not in (was["value"], now["value"]):
                    better = (now["value"] > was["value"]) == column["higher_is_better"]
                found.append(_change("value", place, new.row, column, was["value"], now["value"], better))
            else:
                within += 1
        if was["rank"] != now["rank"]:
            found.append(_change("rank", place, new.row, column, was["rank"], now["rank"]))
    return found, within


def _state(row: Data) -> str:
    """`complete`, `failed: diverged`, `complete, stale: ...`."""
    told = f"{row['status']}: {row['reason']}" if row["reason"] else str(row["status"])
    return f"{told}, stale: {row['stale']}" if row.get("stale") else told


def _beyond_noise(old: Data, new: Data, in_logarithms: bool) -> bool:
    if old["value"] is None or new["value"] is None:
        return True
    was, now = float(old["value"]), float(new["value"])
    half = hypot(*(_half(each, in_logarithms) for each in (old, new)))
    if in_logarithms and min(was, now) > 0:
        return abs(log(now / was)) > (half or EQUAL)
    return abs(now - was) > (half or EQUAL * max(abs(was), abs(now)))


def _half(score: Data, in_logarithms: bool) -> float:
    """Half the width of an interval; 0 without one."""
    low, high = score["low"], score["high"]
    if low is None or high is None:
        return 0.0
    if not in_logarithms:
        return float(high - low) / 2
    return log(high / low) / 2 if low > 0 else 0.0


def _change(
    kind: str, place: Place, row: Data, column: Data | None = None, old: Any = None, new: Any = None,
    better: bool | None = None,
) -> Change:  # fmt: skip
    teacher, budget, name = place
    facts = {"old": old, "new": new, "better": better, "column": _title(column) if column else ""}
    return Change(kind=kind, teacher=teacher, budget=budget, row=name, method=_label(row), **facts)


def _label(row: Data) -> str:
    fields = ", ".join(f"{name}={value}" for name, value in sorted(row["fields"].items()))
    return f"{row['method']} ({fields})" if fields else str(row["method"])


def _title(column: Data) -> str:
    return f"{column['protocol']} {column['metric']}"


def sentences(found: Changes) -> Iterable[str]:
    """One line per change, for a reader."""
    for each in found.found:
        where = f"{each.teacher} at {each.budget}" if each.budget else each.teacher
        who = f"{each.row} {each.method}" if each.row else each.column
        yield f"{each.kind}: {who}{_what(each)} ({where})"
    if found.within_noise:
        yield f"{found.within_noise} further values moved within their noise"
    if not found.found and not found.within_noise:
        yield "nothing changed"


def _what(change: Change) -> str:
    if change.kind in ("new row", "gone row"):
        return f", {change.new or change.old}"
    if change.kind in ("new column", "gone column"):
        return ""
    old, new = (_shown(value) for value in (change.old, change.new))
    verdict = "" if change.better is None else ", better" if change.better else ", worse"
    return f", {change.column} {old} → {new}{verdict}" if change.column else f", {old} → {new}"


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"#{value[0]}" if value[0] == value[1] else f"#{value[0]}–{value[1]}"
    return "none" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)
