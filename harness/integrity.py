"""Whether a record is what the stages of its store left: its name, its keys, its numbers, the files behind them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.identity import digest
from harness.records import outcome_digest
from methods import registry
from methods.interface import Budget, MethodError
from results.artifacts import Artifacts, Manifest
from results.items import sample
from results.plain_text import one_line
from results.record import Measured, Record
from results.store import Store, sha256
from results.verification import Check

MEASURING = ("evaluate", "finetune")
NOT_FROM_ITEMS = "items do not reproduce the value"
"""Of a metric that is not its protocol's main one it may be so: not all have a closed form over items."""
BAD_ITEMS = ("items file is gone", "items file is damaged", "items are not distinct", NOT_FROM_ITEMS)
STAGE_OF = {"before_training": ("compress",), "final": ("distill", "compress")}
"""Labels under which a record names the model that was measured, the likelier first."""


@dataclass(frozen=True)
class Evidence:
    """A record and the artifacts it points to."""

    record: Record
    artifacts: Artifacts

    def measuring(self, measured: Measured) -> Manifest | None:
        """The stage that measured it."""
        found = (self.artifacts.manifest(stage, _safe(measured.stage_key)) for stage in MEASURING)
        return next((manifest for manifest in found if manifest), None)

    def model(self, when: str) -> Manifest | None:
        """The stage that made the model which was measured, as the record's stage keys name it."""
        for label in STAGE_OF[when]:
            if label in self.record.stages:
                return self.artifacts.manifest(label, _safe(self.record.stages[label]))
        return None

    def manifests(self) -> Iterator[Manifest]:
        """Those of the student and of what measured it, each once."""
        models = [self.model(when) for when in STAGE_OF]
        measuring = [self.measuring(each) for each in self.record.measured]
        yield from {found.key: found for found in [*models, *measuring] if found}.values()


def _safe(key: str) -> str:
    """A stage key, or a name that no artifact has: what a record says is no path."""
    return key if key.isalnum() else "no-such-key"


def checks(evidence: Evidence) -> Iterator[Check]:
    """Every check by its name, with the problem where there is one."""
    named: list[tuple[str, Callable[[Evidence], str]]] = [
        ("the record's name fits its content", _name),
        ("its cell is what its stages were told", _cell),
        ("its sizes are those that were counted", _size),
        ("its numbers are those that were measured", _numbers),
        ("its numbers follow from its items", _items),
        ("what was measured is its student", _chain),
        ("artifacts have the keys of what they are made of", _keys),
        ("artifacts have the checksums of their manifests", _files),
    ]
    for what, check in named:
        try:
            yield Check(what=what, problem=one_line(check(evidence)))
        except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
            yield Check(what=what, problem=one_line(f"cannot be checked: {type(error).__name__}: {error}"))


def _name(evidence: Evidence) -> str:
    record = evidence.record
    name = f"records/{record.row}-{record.cell.seed}-{outcome_digest(record)}.json"
    if evidence.artifacts.store.exists(name):
        return ""
    return "no record has its digest: its row, seed, sweep, status or stage keys were changed"


def _cell(evidence: Evidence) -> str:
    cell = evidence.record.cell
    student, trained = _compressed(evidence), evidence.model("final")
    if student is None or trained is None:
        return ""
    told = student.parts["params"]
    try:
        target = registry.resolve(cell.method)
    except MethodError:
        target = told["target"]
    budget = str(Budget(**told["budget"])) if told["budget"] else None
    seed = trained.parts["params"].get("seed", cell.seed) if trained.stage == "distill" else cell.seed
    pairs = {
        "method": (cell.method if target != told["target"] else "", ""),
        "budget": (cell.budget, budget),
        "seed": (cell.seed, seed),
        **{f"field {name}": (cell.fields.get(name), value) for name, value in told["fields"].items()},
    }
    return "; ".join(f"{name} is {claimed!r}, not {was!r}" for name, (claimed, was) in pairs.items() if claimed != was)


def _compressed(evidence: Evidence) -> Manifest | None:
    """What the method made; a control's student is redrawn from it."""
    found = evidence.model("before_training")
    if found and "compressed" in found.parts["parents"]:
        return evidence.artifacts.manifest("compress", found.parts["parents"]["compressed"])
    return found


def _size(evidence: Evidence) -> str:
    record, student = evidence.record, evidence.model("before_training")
    if record.size is None or student is None:
        return ""
    claimed = record.size.model_dump()
    return _unequal({name: (claimed[name], value) for name, value in student.result.items() if name in claimed})


def _numbers(evidence: Evidence) -> str:
    pairs: dict[str, tuple[Any, Any]] = {}
    for each in evidence.record.measured:
        if manifest := evidence.measuring(each):
            name = f"{each.protocol} {each.metric}{' before training' if each.when == 'before_training' else ''}"
            pairs[name] = (each.value, manifest.result["metrics"].get(each.metric))
            pairs[f"data of {name}"] = (each.data, manifest.parts["data"])
            pairs[f"protocol of {name}"] = (each.protocol, manifest.parts["params"]["task"])
    return _unequal(pairs)


def _unequal(pairs: Mapping[str, tuple[Any, Any]]) -> str:
    return "; ".join(f"{name} is {claimed}, not {was}" for name, (claimed, was) in pairs.items() if claimed != was)


def _items(evidence: Evidence) -> str:
    """The metrics again from the items: a tampered record or a tampered file of items does not fit."""
    store = evidence.artifacts.store
    found = []
    for each in evidence.record.measured:
        if each.items_path is None:
            continue
        manifest = evidence.measuring(each)
        home = f"{evidence.artifacts.home(manifest.stage, manifest.key)}/{manifest.attempt}" if manifest else ""
        if manifest and each.items_path != f"{home}/items.parquet":
            found.append(f"{each.protocol}: its items are another stage's")
        elif (missing := sample(each, store).missing) in BAD_ITEMS and (each.main or missing != NOT_FROM_ITEMS):
            found.append(f"{each.protocol} {each.metric}: {missing}")
    return "; ".join(found)


def _chain(evidence: Evidence) -> str:
    """The model that each measurement read is the student that the record names."""
    found = []
    for each in evidence.record.measured:
        measuring, model = evidence.measuring(each), evidence.model(each.when)
        if measuring and model and measuring.parts["parents"]["model"] != model.key:
            found.append(f"{each.protocol} measured {measuring.parts['parents']['model']}, its student is {model.key}")
    return "; ".join(dict.fromkeys(found))


def _keys(evidence: Evidence) -> str:
    wrong = [f"{m.stage}/{m.key}" for m in evidence.manifests() if digest(m.parts) != m.key]
    return f"not so of {', '.join(wrong)}" if wrong else ""


def _files(evidence: Evidence) -> str:
    """Every byte is read: a directory's sizes are checked whenever it is used, its checksums only here."""
    artifacts, found = evidence.artifacts, []
    for manifest in evidence.manifests():
        home = f"{artifacts.home(manifest.stage, manifest.key)}/{manifest.attempt}"
        for file, facts in manifest.files.items():
            try:
                same = _checksum(artifacts.store, f"{home}/{file}") == facts["sha256"]
            except OSError:
                found.append(f"{manifest.stage}/{manifest.key}: {file} is gone")
                continue
            if not same:
                found.append(f"{manifest.stage}/{manifest.key}: {file} is not what was published")
    return "; ".join(found)


def _checksum(store: Store, name: str) -> str:
    return sha256(store.local / name) if store.local else hashlib.sha256(store.read_bytes(name)).hexdigest()
