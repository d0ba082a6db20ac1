"""The sweep that makes one row, as plain data: kept in its record, and printed by `weighin reproduce`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from harness.cells import CellPlan, SweepPlan
from harness.graph import Stage
from harness.identity import digest
from harness.spec import Resources, Sweep
from results.artifacts import Artifacts
from tasks.corpora import Corpus

CODE_DIGITS = 12
KEYS = ("name", "teacher", "corpus", "methods", "budgets", "recipes", "tasks", "finetune", "seeds", "controls",
        "calibration", "resources")  # fmt: skip
"""In the order of the sweep file's documentation; what only describes or shows is left out."""


def row_sweep(plan: SweepPlan, cell: CellPlan, micro_batches: Mapping[str, int]) -> dict[str, Any]:
    """The sweep restricted to one cell, with every default that has a say in its result filled in.

    A control's sweep is that of its row with the one control. Paths stand as the sweep wrote them. `micro_batches` are
    those that the stages chose, since results are equal to the bit only at equal ones.
    """
    sweep = plan.sweep
    data = sweep.model_dump(mode="json", exclude_none=True)
    data["corpus"] = _corpus(sweep.corpus)
    data["methods"] = [
        {cell.contender.name: dict(cell.contender.fields)} if cell.contender.fields else cell.contender.name
    ]
    data["budgets"] = [{cell.budget.unit: _whole(cell.budget.value)}] if cell.budget else data["budgets"][:1]
    data["recipes"] = [_recipe(plan, cell)]
    data["tasks"] = [{name: value for name, value in task.items() if value is not False} for task in data["tasks"]]
    data["seeds"] = [cell.seed]
    data["controls"] = [cell.control.kind] if cell.control else []
    data["resources"] = _resources(sweep, micro_batches)
    return {name: data[name] for name in KEYS if data.get(name)}


def _whole(value: float) -> float | int:
    """82000000, not 8.2e7: a fraction of the teacher stays one."""
    return int(value) if value > 1 and value.is_integer() else value


def _corpus(corpus: Corpus | None) -> dict[str, Any]:
    if corpus is None:
        return {}
    return {each.name: value for each in fields(corpus) if (value := getattr(corpus, each.name)) != each.default}


def _recipe(plan: SweepPlan, cell: CellPlan) -> Any:
    """As the sweep has it: a control's own recipe is what the control makes of its row's."""
    of = cell
    if cell.control:
        of = next(each for each in plan.cells if (each.row, each.seed) == (cell.control.of, cell.seed))
    if of.recipe_kind != "shared":
        return of.recipe_kind
    assert of.recipe is not None
    return of.recipe.model_dump(mode="json", exclude_none=True)


def _resources(sweep: Sweep, micro_batches: Mapping[str, int]) -> dict[str, Any]:
    """As the sweep has them, and the micro-batches that stages chose themselves."""
    asked = dict(sweep.resources)
    for stage, micro_batch in micro_batches.items():
        given = sweep.resources.get(sweep.resources_of(stage)) or Resources()
        if given.micro_batch is None:
            asked[stage] = given.model_copy(update={"micro_batch": micro_batch})
    return {name: given.model_dump(mode="json", exclude_unset=True) for name, given in asked.items()}


def chosen_micro_batches(needed: Sequence[Stage], artifacts: Artifacts) -> dict[str, int]:
    """Stage name -> the micro-batch that it ran with, where all stages of the name ran with the same."""
    found: dict[str, set[int | None]] = {}
    for stage in needed:
        if manifest := artifacts.manifest(stage.name, stage.key):
            found.setdefault(stage.name, set()).add(manifest.execution.get("micro_batch"))
    return {name: each for name, used in found.items() if len(used) == 1 and (each := next(iter(used)))}


def code_digests(stages: Mapping[str, Stage]) -> dict[str, str]:
    """Label -> digest of the code that computed the stage, apart from its data, parameters and libraries."""
    return {label: digest(stage.parts["code"], CODE_DIGITS) for label, stage in stages.items()}


def data_read(plan: SweepPlan, cell: CellPlan) -> dict[str, str]:
    """`corpus`, `teacher`, `method` and each task -> the fingerprint of its data, as far as it has some."""
    named = {"corpus": "corpus", "teacher": "teacher", "compress": "method"}
    found = {named[stage.name]: stage.data for stage in cell.needed if stage.name in named and stage.data}
    return found | {name: cell.stages[name].data for name in plan.tasks if name in cell.stages}


@dataclass(frozen=True, kw_only=True)
class Input:
    """Something outside weighin that a sweep reads."""

    key: str
    """Where the sweep names it, as `--set` takes it where it can be changed."""
    place: str
    local: bool
    """A path of the machine that ran it; else a name of the hub, or of a package."""
    data: str
    """Of which `data_read` fingerprint it is."""

    @property
    def here(self) -> bool:
        """A path that is there, seen from the current directory."""
        return not self.local or Path(self.place).expanduser().exists()


def inputs_of(sweep: Mapping[str, Any]) -> list[Input]:
    """What a sweep's data reads from outside: paths first."""
    return sorted(_inputs(sweep), key=lambda each: not each.local)


def _inputs(sweep: Mapping[str, Any]) -> Iterator[Input]:
    teacher, corpus = sweep.get("teacher", {}), sweep.get("corpus", {})
    gguf = teacher.get("gguf") or {}
    if teacher.get("directory"):
        yield Input(key="teacher.directory", place=teacher["directory"], local=True, data="teacher")
    if gguf.get("package"):
        yield Input(key="teacher.gguf.package", place=f"package {gguf['package']}", local=False, data="teacher")
    elif gguf:
        yield Input(key="teacher.gguf.file", place=gguf["file"], local=True, data="teacher")
    if teacher.get("model"):
        place = f"{teacher['model']}@{teacher.get('revision', '')}"
        yield Input(key="teacher.model", place=place, local=False, data="teacher")
    if corpus.get("directory"):
        yield Input(key="corpus.directory", place=corpus["directory"], local=True, data="corpus")
    if corpus.get("hub"):
        yield Input(key="corpus.hub", place=f"{corpus['hub']} {corpus.get('config', '')}", local=False, data="corpus")
    for number, task in enumerate(sweep.get("tasks", ())):
        if task.get("text"):
            yield Input(key=f"tasks.{number}.text", place=task["text"], local=True, data=task["task"])
    yield from _places_of_methods(sweep)


def _places_of_methods(sweep: Mapping[str, Any]) -> Iterator[Input]:
    """Fields that a method declares as places."""
    from methods import registry
    from methods.interface import MethodError

    for method in sweep.get("methods", ()):
        for name, given in method.items() if isinstance(method, Mapping) else ():
            try:
                places = registry.load(name).places
            except MethodError:
                continue
            for field in (each for each in given or () if each in places):
                yield Input(key=f"methods.{name}.{field}", place=str(given[field]), local=True, data="method")
