"""Finds tasks by name without importing any: `names`, `resolve`, `load`.

A task is a top-level class in a module of `tasks/` whose body says `name = "<data>.<what>.v<version>"`; nothing else
registers it. The name is read from the syntax tree, so listing costs no import. Other distributions add tasks through
the entry-point group `weighin.tasks` (`"<name>" = "module:Class"`). The class is built without arguments.

lm-eval's tasks are protocols too, thousands of them, and not listed: `lm_eval:<task>`, or in full
`lm_eval.<task>.<n>shot.v<version>+<lm-eval's version>`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

from tasks.interface import DataError, Task

GROUP = "weighin.tasks"
LM_EVAL_TASK = "tasks.lm_eval_task:LmEvalTask"
VERSIONED = re.compile(r"\.v\d+$")


def names() -> tuple[str, ...]:
    """The names of all tasks, sorted."""
    return tuple(sorted(_targets()))


def resolve(name: str) -> str:
    """`module:Class` of the task called `name`; `DataError` naming the nearest one when there is none."""
    if is_lm_eval(name):
        return LM_EVAL_TASK
    known = _targets()
    if name not in known:
        close = get_close_matches(name, sorted(known), n=1, cutoff=0.4)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"
        raise DataError(f"no task is called {name!r}; {hint}")
    return known[name]


def load(name: str) -> Task:
    """The task called `name`, or the one at a `module:Class` that `resolve` returned; its module is imported now.

    Raises:
        DataError: there is no task of that name, its module does not import, or what it names is no task.
    """
    if is_lm_eval(name):
        from tasks.lm_eval_task import LmEvalTask

        return LmEvalTask.named(name)
    module, _, attribute = (name if ":" in name else resolve(name)).partition(":")
    try:
        task = getattr(import_module(module), attribute)()
    except (ImportError, SyntaxError, AttributeError, NameError, TypeError) as error:
        raise DataError(f"task {name!r} does not load ({module}): {type(error).__name__}: {error}") from error
    if not isinstance(task, Task):
        raise DataError(f"task {name!r}: {module}:{attribute} is not a Task")
    return task


def is_lm_eval(name: str) -> bool:
    """True for the name of one of lm-eval's own tasks."""
    return name.startswith(("lm_eval:", "lm_eval."))


def expand(name: str, num_fewshot: int | None = None) -> list[str]:
    """The tasks that a name in a sweep stands for: itself, or what `lm_eval:<task, tag or group>` is in full.

    `DataError` for `num_fewshot` where the number of examples in the prompt is not to be chosen.
    """
    if name.startswith("lm_eval:"):
        from tasks.lm_eval_task import protocols

        return protocols(name, num_fewshot)
    if num_fewshot is not None:
        raise DataError(f"{name}: `num_fewshot` is for lm-eval's tasks, `lm_eval:<task>`")
    return [name]


def summary(name: str) -> str:
    """The first line of the task's docstring, read without importing it; empty for another distribution's."""
    module, _, attribute = resolve(name).partition(":")
    path = Path(__file__).parent / f"{module.removeprefix('tasks.')}.py"
    if not module.startswith("tasks.") or not path.is_file():
        return ""
    classes = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)]
    found = next(node for node in classes if node.name == attribute)
    return (ast.get_docstring(found) or "").partition("\n")[0]


def _targets() -> dict[str, str]:
    known = {point.name: point.value for point in entry_points(group=GROUP)}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        for name, attribute in _declared(path):
            if name in known:
                raise DataError(f"two tasks are called {name}: {known[name]} and tasks.{path.stem}:{attribute}")
            known[name] = f"tasks.{path.stem}:{attribute}"
    return known


def _declared(path: Path) -> Iterator[tuple[str, str]]:
    """(task name, class name) of each class that says `name = "..."`, with or without an annotation."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise DataError(f"tasks/{path.name}, line {error.lineno}: {error.msg}") from None
    for node in tree.body:
        if not isinstance(node, ast.ClassDef):
            continue
        for line in node.body:
            target = line.targets[0] if isinstance(line, ast.Assign) else getattr(line, "target", None)
            value = getattr(line, "value", None)
            if not (isinstance(target, ast.Name) and target.id == "name" and isinstance(value, ast.Constant)):
                continue
            if VERSIONED.search(str(value.value)):
                yield str(value.value), node.name
