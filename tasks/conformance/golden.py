"""The check that a task's version is raised when what it gives changes: its output on fixed models, kept in a file.

Numbers are compared to `TOLERANCE`, since they differ in their last digits from machine to machine; texts and counts
exactly, by a hash. Output on other data than the file's is not compared.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from math import fsum, isclose
from pathlib import Path
from typing import Any

from tasks.conformance.bench import Bench, Check, NotApplicable
from tasks.conformance.classifying import guess
from tasks.interface import Classification, DataError, Examples

TOLERANCE = 1e-4
OUTPUT = "its output is that of its version"


def output_is_its_versions(bench: Bench) -> Iterator[str]:
    """A name that the file does not have yet is added to it."""
    if bench.golden is None:
        raise NotApplicable("no file of outputs was given (--golden)")
    known, name, found = read(bench.golden), bench.task.name, output(bench)
    if name not in known:
        bench.golden.write_text(json.dumps(dict(sorted((known | {name: found}).items())), indent=1) + "\n")
        return
    if known[name]["data"] != found["data"]:
        raise NotApplicable(f"{bench.golden.name} has its output on other data")
    if changed := _difference(known[name], found):
        yield f"the output of {name} changed ({changed}): bump its version"


def output(bench: Bench) -> dict[str, Any]:
    """What the task gives for the kit's fixed model or guesses, in short."""
    data = {"data": f"{bench.on}, {bench.fingerprint}"}
    if isinstance(bench.task, Classification):
        examples = {"train": _summary(_flat(bench.train)), "validation": _summary(_flat(bench.validation))}
        scores = bench.classification.score(guess(bench), bench.validation.labels)
        return data | {"metrics": dict(scores), "items": examples}
    items = {name: _summary(column) for name, column in bench.measured.items.items()}
    return data | {"metrics": dict(bench.measured.metrics), "items": items}


def _flat(examples: Examples) -> list[Any]:
    return [list(examples.first), list(examples.second or ()), list(examples.labels)]


def _summary(column: Sequence[Any]) -> dict[str, Any]:
    """Sums that tell order from order of floats; a hash of anything else."""
    if all(isinstance(value, float) for value in column):
        return {"sum": fsum(column), "ordered_sum": fsum(place * value for place, value in enumerate(column))}
    return {"count": len(column), "sha256": sha256(json.dumps(list(column), default=int).encode()).hexdigest()}


def _difference(known: Any, found: Any, where: str = "") -> str | None:
    if isinstance(known, Mapping) and isinstance(found, Mapping):
        if known.keys() != found.keys():
            return f"{where or 'it'} has {', '.join(found)}, had {', '.join(known)}"
        parts = (_difference(known[name], found[name], f"{where} {name}".strip()) for name in known)
        return next((part for part in parts if part), None)
    if isinstance(known, float) and isinstance(found, float):
        same = isclose(known, found, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    else:
        same = known == found
    return None if same else f"{where} was {_short(known)}, is {_short(found)}"


def _short(value: Any) -> str:
    return f"{value:.8g}" if isinstance(value, float) else str(value)[:12]


def read(path: Path) -> dict[str, Any]:
    """The outputs in a file, none where it does not exist yet; `DataError` when it holds something else."""
    try:
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise DataError(f"--golden {path}: cannot be read: {error}") from None
    if not isinstance(known, dict):
        raise DataError(f"--golden {path}: is not a JSON object of outputs by task")
    return known


CHECKS = (Check(title=OUTPUT, run=output_is_its_versions),)
