"""`weighin verify`: a row's checkpoint evaluated again, and its record and files checked against each other."""

from __future__ import annotations

import json
import math
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import SpecError
from harness.integrity import Evidence, checks
from harness.provenance import environment
from harness.reevaluate import (
    Again,
    CannotEvaluate,
    Here,
    Place,
    evaluate,
    other_libraries,
    protocol_changes,
    protocol_here,
    tolerance,
)
from harness.rows import records_of
from results.artifacts import Artifacts
from results.plain_text import one_line
from results.record import Measured, Record
from results.store import Store
from results.verification import WORDS, Check, Verdict, Verification, Verified, notes_of, outcome_of

if TYPE_CHECKING:
    from rich.console import RenderableType

CONFIRMING: tuple[Verdict, ...] = ("holds", "recomputed")


def verify_row(row: str, store_url: str, mirror: Path | None, *, text: Path | None, as_json: bool) -> int:
    """Verify each seed of a row, keep what is found in the store and print it; 0 when every seed holds, else 1.

    Raises:
        SpecError: no such row, or none of it is complete.
    """
    from harness.boards import drawn

    warnings.filterwarnings("ignore")
    if mirror is not None and not mirror.is_dir():
        raise SpecError(f"--mirror {mirror}: no such directory")
    store = Store(store_url)
    records = records_of(row, store)
    complete = [record for record in records if record.status == "complete"]
    if not complete:
        raise SpecError(f"{row}: it is {records[0].status}: there is nothing to verify")
    found = []
    for record in complete:
        found.append(verify(record, store, mirror, text=text))
        _keep(found[-1], store)
    if as_json:
        print(json.dumps([each.model_dump() for each in found], indent=1))
    else:
        print(drawn(as_terminal(found)), end="")
    return 0 if all(each.verdict in CONFIRMING for each in found) else 1


def _keep(found: Verification, store: Store) -> None:
    """In the store; one that may only be read is verified all the same."""
    try:
        store.put_if_absent(found.name, found.model_dump_json(indent=1).encode())
    except OSError as error:
        print(f"not kept: store {store.url}: {error.strerror or error}", file=sys.stderr)


def verify(record: Record, store: Store, mirror: Path | None, *, text: Path | None = None) -> Verification:
    """One seed: its record and files are checked, and each of its measurements is repeated."""
    evidence = Evidence(record, Artifacts(store))
    problems = list(checks(evidence))
    metrics: list[Verified] = []
    changed: list[str] = []
    circumstances: list[str] = []
    known: dict[str, Here] = {}
    for protocol, when in dict.fromkeys((each.protocol, each.when) for each in record.measured):
        measured = [each for each in record.measured if (each.protocol, each.when) == (protocol, when)]
        place = Place(artifacts=evidence.artifacts, mirror=mirror, text=text or _text(record, protocol))
        if protocol not in known:
            known[protocol] = protocol_here(protocol, place)
        one = _Repeated(evidence, measured, place, known[protocol])
        metrics += one.metrics
        changed += [f"{protocol}: {one_line(change)}" for change in one.changed]
        circumstances += one.circumstances
    here = environment()
    return Verification(
        row=record.row,
        seed=record.cell.seed,
        outcome=outcome_of(record),
        created_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        commit=here["commit"],
        dirty=here["dirty"],
        hardware=here["hardware"],
        versions=here["versions"],
        circumstances=list(dict.fromkeys(circumstances)),
        metrics=metrics,
        checks=problems,
        changed=list(dict.fromkeys(changed)),
        verdict=_verdict(problems, metrics, changed),
    )


def _text(record: Record, protocol: str) -> Path | None:
    """The text of a local.* protocol where the record's sweep has it."""
    sweep: Any = record.provenance.get("sweep")
    tasks = sweep.get("tasks") if isinstance(sweep, Mapping) else None
    for task in tasks if isinstance(tasks, list) else ():
        if isinstance(task, Mapping) and task.get("task") == protocol and task.get("text"):
            return Path(str(task["text"]))
    return None


class _Repeated:
    """One evaluation of a record, repeated: each metric beside its claim, and what is otherwise here."""

    def __init__(self, evidence: Evidence, measured: Sequence[Measured], place: Place, here: Here) -> None:
        self.changed: list[str] = []
        self.circumstances: list[str] = []
        try:
            again = self._evaluate(evidence, measured[0], place, here)
        except CannotEvaluate as error:
            self.metrics = [_unchecked(each, one_line(error)) for each in measured]
        except (KeyError, TypeError, AttributeError) as error:
            why = f"its manifests are not in the form of this weighin's: {type(error).__name__} {error}"
            self.metrics = [_unchecked(each, one_line(why)) for each in measured]
        else:
            self.metrics = [_compare(each, again, elsewhere=bool(self.circumstances)) for each in measured]

    def _evaluate(self, evidence: Evidence, measured: Measured, place: Place, here: Here) -> Again:
        measuring, model = evidence.measuring(measured), evidence.model(measured.when)
        if measuring is None:
            raise CannotEvaluate("what measured it is not in this store")
        self.changed = list(protocol_changes(measuring, here, place.mirror))
        self.circumstances = other_libraries(measuring)
        theirs, mine = measuring.environment.get("hardware"), environment()["hardware"]
        if theirs != mine:
            self.circumstances.append(f"hardware {theirs}, here {mine}")
        if here.task is None:
            raise CannotEvaluate(here.missing)
        if model is None:
            raise CannotEvaluate("its checkpoint is not in this store")
        return evaluate(model, measuring, here.task, place)


def _unchecked(measured: Measured, why: str) -> Verified:
    return Verified(
        protocol=measured.protocol, metric=measured.metric, when=measured.when, how="not checked",
        claimed=measured.value, note=why,
    )  # fmt: skip


def _compare(measured: Measured, again: Again, *, elsewhere: bool) -> Verified:
    """A number beside its claim; noise is measured only where they are not equal."""
    if measured.metric not in again.metrics:
        return _unchecked(measured, "the protocol has no such metric here")
    found = again.metrics[measured.metric]
    difference = found - measured.value
    if difference == 0:
        allowed, source = 0.0, "equal bit for bit"
    else:
        allowed, source = tolerance(measured.value, again, measured.metric, elsewhere=elsewhere)
    return Verified(
        protocol=measured.protocol,
        metric=measured.metric,
        when=measured.when,
        how=again.how,  # type: ignore[arg-type]
        claimed=measured.value,
        found=found if math.isfinite(found) else None,
        difference=difference if math.isfinite(difference) else None,
        tolerance=allowed,
        tolerance_from=source,
        holds=math.isfinite(difference) and abs(difference) <= allowed,
        note="" if math.isfinite(found) else f"it is {found} now",
    )


def _verdict(problems: Sequence[Check], metrics: Sequence[Verified], changed: Sequence[str]) -> Verdict:
    """The first that is so; code that changed and gives the same numbers is a note, other data never are."""
    if any(check.problem for check in problems):
        return "inconsistent"
    wrong = {metric.protocol for metric in metrics if metric.holds is False}
    altered = {change.partition(": ")[0] for change in changed}
    gone = [change for change in changed if not change.partition(": ")[2].startswith("code ")]
    if wrong - altered:
        return "differs"
    if wrong or gone:
        return "protocol_changed"
    if all(metric.holds is None for metric in metrics):
        return "unverifiable"
    if any(metric.holds is None for metric in metrics):
        return "partly"
    return "holds" if any(metric.how == "re-evaluated" for metric in metrics) else "recomputed"


def as_terminal(found: Sequence[Verification]) -> RenderableType:
    """A table of the metrics of all seeds; below, per seed, what was found."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("seed", "metric", "claimed", "found", "difference", "tolerance", ""):
        table.add_column(name, justify="left" if name in ("metric", "") else "right", overflow="fold")
    for seed in found:
        for metric in seed.metrics:
            table.add_row(*(Text(text) for text in (str(seed.seed), *_line(metric))))
    below = [Text(line, style=style) for seed in found for line, style in _below(seed)]
    return Group(table, *below)


def _line(metric: Verified) -> list[str]:
    before = " before training" if metric.when == "before_training" else ""
    numbers = ["–" if each is None else f"{each:.8g}" for each in (metric.claimed, metric.found)]
    gaps = ["–" if each is None else f"{each:.2g}" for each in (metric.difference, metric.tolerance)]
    word = "" if metric.holds is None else "holds" if metric.holds else "DOES NOT HOLD"
    how = ", ".join(part for part in (metric.how, word, metric.tolerance_from, metric.note) if part)
    return [f"{metric.protocol} {metric.metric}{before}", *numbers, *gaps, how]


def _below(found: Verification) -> list[tuple[str, str]]:
    good = found.verdict in CONFIRMING
    lines = [(f"seed {found.seed}: {found.verdict}: {WORDS[found.verdict]}", "bold" if good else "bold red")]
    lines += [(f"  {note}", "" if good else "red") for note in notes_of(found)]
    if found.circumstances:
        lines.append((f"  otherwise here: {'; '.join(found.circumstances)}", "dim"))
    return lines
