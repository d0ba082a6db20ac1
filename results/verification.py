"""A verification: a row's checkpoint evaluated again, set beside what its record claims; kept in the store.

`verifications/<row>-<seed>-<digest>.json`, one immutable file per verification. It names the outcome that it is about
by a digest of the numbers and stage keys, so that it says nothing about a record that was changed since.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from results.record import Record

VERIFICATION_SCHEMA = 1
DIRECTORY = "verifications"
Verdict = Literal["inconsistent", "protocol_changed", "differs", "unverifiable", "partly", "recomputed", "holds"]
WORDS: Mapping[Verdict, str] = {
    "inconsistent": "the record and the store disagree",
    "protocol_changed": "measured by another protocol than this checkout's",
    "differs": "evaluated again, and the numbers do not hold",
    "unverifiable": "cannot be evaluated again",
    "partly": "re-evaluated in part",
    "recomputed": "recomputed from predictions, not re-evaluated",
    "holds": "re-evaluated",
}
"""The worst first."""
DENYING: tuple[Verdict, ...] = ("inconsistent", "protocol_changed", "differs")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Verified(_Part):
    """One metric, as claimed and as found."""

    protocol: str
    metric: str
    when: Literal["final", "before_training"] = "final"
    how: Literal["re-evaluated", "recomputed", "not checked"]
    """`recomputed`: from the stored predictions, because the fine-tuned classifier is not kept."""
    claimed: float
    found: float | None = None
    difference: float | None = None
    """found - claimed."""
    tolerance: float | None = None
    """The largest |difference| that measuring noise explains."""
    tolerance_from: str = ""
    holds: bool | None = None
    """None: it was not checked, and `note` says why."""
    note: str = ""

    @property
    def relative(self) -> float | None:
        """|difference| / |claimed|."""
        if self.difference is None:
            return None
        return abs(self.difference) / abs(self.claimed) if self.claimed else abs(self.difference)


class Check(_Part):
    """Something that must be so if the record is what the stages left."""

    what: str
    problem: str = ""
    """Empty when it is so."""


class Verification(_Part):
    """What `weighin verify` found of one seed of a row."""

    schema_version: int = VERIFICATION_SCHEMA
    row: str
    seed: int
    outcome: str
    """`outcome_of` the record."""
    created_at: str
    commit: str | None = None
    """Of the weighin that verified, and whether it had uncommitted changes."""
    dirty: bool | None = None
    hardware: str = ""
    versions: dict[str, str] = Field(default_factory=dict)
    circumstances: list[str] = Field(default_factory=list)
    """What is otherwise here than where the record was made: `hardware`, `torch`, `threads`."""
    metrics: list[Verified] = Field(default_factory=list)
    checks: list[Check] = Field(default_factory=list)
    changed: list[str] = Field(default_factory=list)
    """What of the protocols is not as it was: `words.token_ppl.v1: code of tasks.perplexity`."""
    verdict: Verdict

    @property
    def digest(self) -> str:
        """What its file name ends with."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]

    @property
    def name(self) -> str:
        """Its file in the store."""
        row = self.row if self.row.isalnum() else "other"
        return f"{DIRECTORY}/{row}-{self.seed}-{self.digest}.json"


def outcome_of(record: Record) -> str:
    """A digest of a record's cell, stage keys and numbers: the same through migrations, another after any change."""
    cell, size = record.cell, record.size
    stated = [cell.teacher, cell.method, cell.fields, cell.budget, cell.recipe, cell.recipe_digest, cell.seed]
    numbers = [[each.protocol, each.metric, each.when, each.value, each.stage_key] for each in record.measured]
    counted = [size.params, size.stored_bytes, size.macs_per_token] if size else None
    text = json.dumps([record.row, record.status, stated, record.stages, numbers, counted], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@runtime_checkable
class Lists(Protocol):
    """A reader that can also list: one that cannot has no verifications."""

    def names(self, directory: str, /) -> list[str]:
        """Names directly under `directory`."""
        ...

    def read_bytes(self, name: str, /) -> bytes:
        """Contents of `name`."""
        ...


def verifications(reader: object) -> dict[tuple[str, int], list[Verification]]:
    """(row, seed) -> its verifications, oldest first; a file that is none verifies nothing."""
    found: dict[tuple[str, int], list[Verification]] = {}
    if not isinstance(reader, Lists):
        return found
    for name in reader.names(DIRECTORY):
        if not name.endswith(".json") or name.startswith("."):
            continue
        try:
            each = Verification.model_validate_json(reader.read_bytes(f"{DIRECTORY}/{name}"))
        except (ValidationError, OSError):
            continue
        found.setdefault((each.row, each.seed), []).append(each)
    for several in found.values():
        several.sort(key=lambda each: (each.created_at, each.digest))
    return found


@dataclass(frozen=True)
class RowVerification:
    """The newest verification of each seed of a row, in one."""

    verdict: Verdict
    """The worst of its seeds'."""
    date: str
    """Of the newest."""
    difference: float | None
    """The largest relative one of any metric."""
    re_evaluated: int
    recomputed: int
    unchecked: int
    """How many metrics, over all seeds."""
    seeds: tuple[int, ...]
    """Those that were verified."""
    unverified: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    """What did not hold, and what changed."""

    @property
    def confirms(self) -> bool:
        """Every metric of every seed was checked and holds, and at least one by evaluating the checkpoint again."""
        return self.verdict == "holds" and not self.unverified and not self.unchecked

    @property
    def mark(self) -> str:
        """`✓` where it confirms, `✗` where something does not hold, nothing else."""
        return "✓" if self.confirms else "✗" if self.verdict in DENYING else ""

    @property
    def text(self) -> str:
        """`re-evaluated 2026-11-28: 4 metrics, largest difference 0`."""
        counts = [(self.re_evaluated, "evaluated again"), (self.recomputed, "recomputed from predictions")]
        counts += [(self.unchecked, "not checked")]
        parts = ["metrics: " + ", ".join(f"{count} {how}" for count, how in counts if count)]
        if self.difference is not None:
            parts.append(f"largest difference {self.difference:.2g} relative" if self.difference else "no difference")
        if self.unverified:
            parts.append(f"claimed alone: seed {', '.join(map(str, self.unverified))}")
        parts += self.notes
        return "; ".join(part for part in (f"{WORDS[self.verdict]} {self.date[:10]}", *parts) if part)


def of_row(
    records: Iterable[Record], found: Mapping[tuple[str, int], Sequence[Verification]]
) -> RowVerification | None:
    """What is known of a row's records; None where nobody verified any of them, and its numbers are claims."""
    newest: dict[int, Verification] = {}
    unverified = []
    for record in records:
        same = [each for each in found.get((record.row, record.cell.seed), ()) if each.outcome == outcome_of(record)]
        if same:
            newest[record.cell.seed] = same[-1]
        else:
            unverified.append(record.cell.seed)
    if not newest:
        return None
    each_metric = [metric for verification in newest.values() for metric in verification.metrics]
    order = list(WORDS)
    return RowVerification(
        verdict=min((each.verdict for each in newest.values()), key=order.index),
        date=max(each.created_at for each in newest.values()),
        difference=max((m.relative for m in each_metric if m.relative is not None), default=None),
        re_evaluated=sum(m.how == "re-evaluated" for m in each_metric),
        recomputed=sum(m.how == "recomputed" for m in each_metric),
        unchecked=sum(m.how == "not checked" for m in each_metric),
        seeds=tuple(newest),
        unverified=tuple(unverified),
        notes=tuple(dict.fromkeys(note for each in newest.values() for note in notes_of(each))),
    )


def notes_of(found: Verification) -> list[str]:
    """What a reader must know: what disagrees, what does not hold, what changed."""
    notes = [f"{check.what}: {check.problem}" for check in found.checks if check.problem]
    for metric in found.metrics:
        if metric.holds is False:
            notes.append(f"{metric.protocol} {metric.metric}: claimed {metric.claimed}, found {metric.found}")
        elif metric.note:
            notes.append(f"{metric.protocol} {metric.metric}: {metric.note}")
    notes += [f"changed: {change}" for change in found.changed]
    return ["".join(c if c.isprintable() else " " for c in note) for note in dict.fromkeys(notes)]
