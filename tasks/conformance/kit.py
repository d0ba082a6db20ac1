"""Running the checks, and what they found."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from tasks import registry
from tasks.conformance import classifying, contract, golden, measuring
from tasks.conformance.bench import Bench, Check, NotApplicable
from tasks.interface import Classification, Protocol, Task


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check found."""

    check: str
    on: str
    """`its own data`, or `the embedded text` in their place."""
    status: Literal["passed", "failed", "n/a"]
    message: str = ""
    """What is wrong, or why the check does not apply, in one line."""
    seconds: float = 0.0


def assert_conforms(task: str | Task, *, mirror: Path | None = None, golden: Path | None = None) -> None:
    """Run the kit, for a test suite: one line per failed check in an AssertionError, silence when all hold.

    Args:
        task: a registered name, or a task.
        mirror: local copy of hub repositories.
        golden: a JSON file of outputs by task name; one that it does not have yet is added.
    """
    findings = (
        check(task, mirror=mirror, golden=golden)
        if isinstance(task, str)
        else check_task(task, mirror=mirror, golden=golden)
    )
    failed = [f"{each.check}: {each.message}" for each in findings if each.status == "failed"]
    assert not failed, "\n".join([f"{task} breaks the contract:", *failed])


def check(
    name: str, *, mirror: Path | None = None, golden: Path | None = None, extra: Sequence[Check] = ()
) -> list[Finding]:
    """Run every check on the task called `name`.

    Raises:
        DataError: there is no task of that name, its file does not import, its data are not at hand and cannot be
            replaced by the embedded text, or the golden file cannot be read.
    """
    registered = name if name in registry.names() else None
    return _run_all(Bench(task=registry.load(name), mirror=mirror, registered=registered, golden=golden), extra)


def check_task(
    task: Task, *, mirror: Path | None = None, golden: Path | None = None, extra: Sequence[Check] = ()
) -> list[Finding]:
    """Run every check on `task`; `extra` are the caller's, run last."""
    return _run_all(Bench(task=task, mirror=mirror, golden=golden), extra)


def _run_all(bench: Bench, extra: Sequence[Check]) -> list[Finding]:
    if bench.golden is not None:
        golden.read(bench.golden)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [_run(each, bench) for each in (*_checks(bench.task), *extra)]
    finally:
        torch.set_num_threads(threads)


def _checks(task: Task) -> Iterator[Check]:
    yield from contract.CHECKS
    if isinstance(task, Protocol):
        yield from measuring.CHECKS
    elif isinstance(task, Classification):
        yield from classifying.CHECKS
    yield from golden.CHECKS


def _run(each: Check, bench: Bench) -> Finding:
    on, started = bench.on, time.perf_counter()
    status: Literal["passed", "failed", "n/a"]
    try:
        problem = next(each.run(bench), None)
        status = "passed" if problem is None else "failed"
    except NotApplicable as reason:
        status, problem = "n/a", str(reason)
    except Exception as error:
        status, problem = "failed", f"{_where(error)}: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
    seconds = time.perf_counter() - started
    return Finding(check=each.title, on=on, status=status, message=problem or "", seconds=round(seconds, 3))


def _where(error: Exception) -> str:
    """File and line of the deepest frame outside installed libraries."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "site-packages" not in frame.filename] or list(frames)
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
