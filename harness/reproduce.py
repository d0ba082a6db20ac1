"""`weighin reproduce`: the exact sweep that made a row, from its record alone; what is different here; a run of it."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from harness.errors import SpecError
from harness.provenance import environment
from harness.row_sweep import code_digests, inputs_of
from harness.rows import records_of
from harness.spec import Sweep
from harness.yaml_loader import dump
from results.plain_text import one_line
from results.record import Record
from results.reproduction import Compared, circumstances, compare_results
from results.store import Store
from tasks.interface import DataError

if TYPE_CHECKING:
    from harness.cells import SweepPlan

SEEDS_SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """A row's sweep, its records, and what is otherwise here than where they were made."""

    records: Sequence[Record]
    """One per seed."""
    sweep: Mapping[str, Any]
    warnings: Sequence[str]

    @property
    def text(self) -> str:
        """YAML that `weighin run` takes; the rest are comments."""
        comments = [*_facts(self.records, self.sweep), *(f"WARNING: {warning}" for warning in self.warnings)]
        lines = [f"# {one_line(comment)}" for comment in comments]
        return "\n".join(lines) + "\n\n" + dump(dict(self.sweep))


@dataclass(frozen=True, kw_only=True)
class Rerun:
    """How a reproduction is run."""

    into: str
    """Another store than the row's."""
    mirror: Path | None = None
    overrides: Sequence[str] = ()
    on: str = "ray"
    address: str | None = None


def reproduction(row: str, store: Store, mirror: Path | None = None) -> Reproduction:
    """Read a row's sweep from its records, and compare this checkout with the one that made them.

    Raises:
        SpecError: no such row, records without a sweep (of an older weighin), or of seeds that different sweeps made.
    """
    records = records_of(row, store)
    sweep = sweep_of(records)
    return Reproduction(records=records, sweep=sweep, warnings=list(_warnings(records, sweep, mirror)))


def sweep_of(records: Sequence[Record]) -> dict[str, Any]:
    """The one sweep that made the records, with all their seeds.

    Raises:
        SpecError: a record has no sweep or one that is not valid here, or two differ in more than the seed.
    """
    found: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for record in records:
        sweep = _recorded(record)
        rest = {name: value for name, value in sweep.items() if name not in ("seeds", "name")}
        found.setdefault(json.dumps(rest, sort_keys=True), (sweep, []))[1].append(record.id)
    if len(found) > 1:
        groups = "; ".join(", ".join(ids[:SEEDS_SHOWN]) for _, ids in found.values())
        raise SpecError(f"{records[0].row}: its seeds come from different sweeps: take one, such as {groups}")
    ((sweep, _),) = found.values()
    return sweep | {"seeds": [record.cell.seed for record in records]}


def _recorded(record: Record) -> dict[str, Any]:
    sweep = record.provenance.get("sweep")
    if not isinstance(sweep, dict):
        raise SpecError(f"{record.id}: its record was made by an older weighin and does not say by which sweep")
    try:
        Sweep.model_validate_json(json.dumps(sweep))
    except (ValidationError, DataError, ValueError) as error:
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise SpecError(f"{record.id}: the sweep in its record is not one: {one_line(first)}") from error
    return sweep


def _facts(records: Sequence[Record], sweep: Mapping[str, Any]) -> Iterator[str]:
    """What a reader wants to know before running it."""
    first = records[0]
    made = sorted(str(record.provenance.get("created_at", "unknown")) for record in records)
    seeds = ", ".join(str(record.cell.seed) for record in records)
    yield f"The sweep of row {first.row}, seeds {seeds}, as its record has it (sweep {first.sweep}, made {made[-1]})."
    yield "weighin run THIS_FILE --store ANOTHER_STORE"
    outcomes = sorted({f"{record.status} {record.reason}".strip() for record in records})
    yield f"outcome: {'; '.join(outcomes)}"
    provenance = first.provenance
    yield f"commit: {_commit(provenance)}"
    versions = {"python": provenance.get("python"), **_mapping(provenance.get("versions"))}
    yield "versions: " + ", ".join(f"{name} {version}" for name, version in versions.items())
    yield f"hardware: {provenance.get('hardware', 'unknown')}"
    for name, fingerprint in _mapping(provenance.get("data")).items():
        yield f"data: {name} {fingerprint}"
    for needed in inputs_of(sweep):
        yield f"needs: {needed.key}: {needed.place}"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _commit(provenance: Mapping[str, Any]) -> str:
    changed = " with uncommitted changes" if provenance.get("dirty") else ""
    return f"{provenance.get('commit') or 'unknown'}{changed}"


def _warnings(records: Sequence[Record], sweep: Mapping[str, Any], mirror: Path | None) -> Iterator[str]:
    """What is different here, and what of that changes results."""
    first, here = records[0].provenance, environment()
    if first.get("dirty"):
        yield "the record was made with uncommitted changes: its code is in no commit"
    if (first.get("commit"), first.get("dirty")) != (here["commit"], here["dirty"]):
        yield f"commit: here {_commit(here)}"
    theirs = _mapping(first.get("versions"))
    for name in sorted({*theirs, *here["versions"]}):
        if theirs.get(name) != here["versions"].get(name):
            yield f"version: {name} {theirs.get(name, 'absent')}, here {here['versions'].get(name, 'absent')}"
    if first.get("python") != here["python"]:
        yield f"version: python {first.get('python')}, here {here['python']}"
    if first.get("hardware") != here["hardware"]:
        yield f"hardware: here {here['hardware']}; last bits may differ, and training may amplify them"
    missing = [each for each in inputs_of(sweep) if not each.here]
    for needed in missing:
        changeable = needed.key.count(".") == 1 and not needed.key.startswith("methods.")
        how = f"; --set {needed.key}=PATH" if changeable else ""
        yield f"missing here: {needed.key} {needed.place}{how}"
    if not missing:
        yield from _planned_otherwise(records, sweep, mirror)


def _planned_otherwise(records: Sequence[Record], sweep: Mapping[str, Any], mirror: Path | None) -> Iterator[str]:
    """Data, code and keys that this checkout would give the row, where they are others than the record's."""
    from harness.records import named_stages

    try:
        plan = planned(sweep, mirror)
    except Exception as error:  # a sweep of a record may ask anything of transformers: whatever it raises is the reason
        yield f"it cannot be planned here: {str(error) or type(error).__name__}"
        return
    cells = {(cell.row, cell.seed): cell for cell in plan.cells}
    for record in records:
        cell = cells.get((record.row, record.cell.seed))
        if cell is None:
            others = sorted({row for row, _ in cells})
            yield f"row: here its id is {', '.join(others)}: {_why_another_row(record, plan)}"
            return
        stages = named_stages(cell)
        mine, theirs = code_digests(stages), _mapping(record.provenance.get("code"))
        moved = [label for label, stage in stages.items() if record.stages.get(label) != stage.key]
        changed = [label for label in moved if label in theirs and theirs[label] != mine[label]]
        if changed:
            yield f"code: that of {', '.join(changed)} is not the record's; check out its commit for the same bits"
        rest = [label for label in moved if label not in changed and label != "profile"]
        if rest and not changed:
            yield f"keys: those of {', '.join(rest)} are not the record's: libraries or data differ"
        if changed or rest:
            return


def _why_another_row(record: Record, plan: SweepPlan) -> str:
    from harness.row_sweep import data_read

    theirs = _mapping(record.provenance.get("data"))
    mine = {name: data for cell in plan.cells for name, data in data_read(plan, cell).items()}
    other = sorted(name for name in theirs if name in mine and mine[name] != theirs[name])
    if other:
        return f"the data of {', '.join(other)} are not the record's"
    return "the method, its recipe or the teacher means something else in this checkout"


def planned(sweep: Mapping[str, Any], mirror: Path | None) -> SweepPlan:
    """The plan of a sweep that is plain data; raises what `plan_sweep` raises."""
    import warnings

    warnings.filterwarnings("ignore")
    from harness.planner import plan_sweep

    return plan_sweep(Sweep.model_validate_json(json.dumps(sweep)), mirror)


def run_again(
    found: Reproduction, how: Rerun, store: Store, *, quiet: bool = False
) -> tuple[list[Compared], list[str]]:
    """Run a row's sweep into another store; each figure beside the record's, and what differs that bits depend on.

    Raises:
        SpecError: the other store is the same one, or the sweep cannot be run here.
    """
    from harness.session import run_sweep

    if Store(how.into).root == store.root:
        raise SpecError(f"--into {how.into}: is the row's own store, where nothing would be run; name another one")
    with tempfile.TemporaryDirectory() as scratch, redirect_stdout(sys.stderr if quiet else sys.stdout):
        path = Path(scratch) / "reproduced.yaml"
        path.write_text(found.text, encoding="utf-8")
        run_sweep(path, how.into, how.mirror, how.overrides, on=how.on, address=how.address)
    made = Store(how.into).records()
    return compare_results(found.records, made), circumstances(found.records, made)
