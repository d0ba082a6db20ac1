"""The kit on the tasks that ship, with their outputs as kept in `goldens.json`: other output is another version.

`weighin check-task NAME --golden tests/tasks/goldens.json` adds the output of a new name. Those on the embedded text
are of one Python's, and are not compared under another.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.items_check import ITEMS_CHECK
from tasks import conformance, registry
from tasks.interface import DataError

GOLDENS = Path(__file__).parent / "goldens.json"
EMBEDDED = [name for name in registry.names() if name.startswith("pydoc.")]


def problems(name: str, mirror: Path | None) -> list[str]:
    """Failed checks; the file of outputs is not to be written to."""
    if name not in json.loads(GOLDENS.read_text()):
        return [f"{GOLDENS.name} has no {name}: weighin check-task {name} --golden tests/tasks/{GOLDENS.name}"]
    findings = conformance.check(name, mirror=mirror, golden=GOLDENS, extra=[ITEMS_CHECK])
    return [f"{each.check}: {each.message}" for each in findings if each.status == "failed"]


@pytest.mark.parametrize("name", EMBEDDED)
def test_an_embedded_task_conforms(name: str) -> None:
    assert problems(name, None) == []


@pytest.mark.mirror
@pytest.mark.parametrize("name", [name for name in registry.names() if name not in EMBEDDED])
def test_a_task_on_the_mirrors_data_conforms(name: str, mirror: Path) -> None:
    try:
        registry.load(name).check(mirror)
    except DataError as error:
        pytest.skip(str(error))
    assert problems(name, mirror) == []
