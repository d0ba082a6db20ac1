"""Running the checks, and what they found."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from methods import registry, tiny
from methods.conformance import contract, keeping, layers, numerics, size, training
from methods.conformance.bench import Bench, Check, NotApplicable, fill, prepare
from methods.fields import settle
from methods.interface import Method, MethodError
from methods.tiny import Teacher

BUDGETS = (0.7, 0.85, 1.0)
FAST_BUDGETS = (0.7, 1.0)
FAST_TEACHERS = ("gpt2", "llama-untied")
CHECKS: Sequence[Check] = (
    *size.CHECKS,
    *contract.CHECKS,
    *layers.CHECKS,
    *numerics.CHECKS,
    *keeping.CHECKS,
    *training.CHECKS,
)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check found on one teacher."""

    check: str
    teacher: str
    status: Literal["passed", "failed", "n/a"]
    message: str = ""
    """What is wrong, or why the check does not apply, in one line."""
    seconds: float = 0.0


def assert_conforms(method: str | Method, *, fast: bool = True, teachers: Sequence[str] | None = None) -> None:
    """Run the kit, for a test suite: one line per failed check in an AssertionError, silence when all hold.

    Args:
        method: a registered name, or an instance where fields differ from their defaults.
        fast: the checks and teachers that take seconds; else all of them, in under two minutes.
        teachers: labels of `methods.tiny.TEACHERS` or local model directories; by default the kit's own.
    """
    found = check(method, fast=fast, teachers=teachers) if isinstance(method, str) else None
    findings = check_method(method, fast=fast, teachers=teachers) if isinstance(method, Method) else found or []
    failed = [f"{each.check} [{each.teacher}]: {each.message}" for each in findings if each.status == "failed"]
    assert not failed, "\n".join([f"{method} breaks the contract:", *failed])


def check(
    name: str, *, fast: bool = False, teachers: Sequence[str] | None = None, extra: Sequence[Check] = ()
) -> list[Finding]:
    """Run every check on the method `name` with its default fields; `fast` takes seconds.

    Raises:
        MethodError: there is no method of that name, its file does not import, or a teacher is not known.
    """
    kind = registry.load(name)
    try:
        method = kind()
    except TypeError as error:
        return [Finding(check="fields have defaults", teacher="-", status="failed", message=str(error))]
    return check_method(method, fast=fast, teachers=teachers, extra=extra)


def check_method(
    method: Method, *, fast: bool = False, teachers: Sequence[str] | None = None, extra: Sequence[Check] = ()
) -> list[Finding]:
    """Run every check on `method` as it is, its preset filled in.

    Args:
        teachers: labels of `methods.tiny.TEACHERS` or model directories; by default two tiny ones when `fast`, else
            all four; for a method with a preset `methods.tiny.WIDE`.
        extra: checks of the caller's, run last.
    """
    settled = settle(method)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        sources = [tiny.find(label) for label in teachers or _teachers(settled, fast)]
        found = [_check_on(settled, source, fast, extra) for source in sources]
    finally:
        torch.set_num_threads(threads)
    return [finding for part in found for finding in part]


def _teachers(method: Method, fast: bool) -> Sequence[str]:
    """A preset has GPT-2 small's shapes, which only a teacher of its width has."""
    if getattr(method, "preset", None) is not None:
        return (tiny.WIDE,)
    return FAST_TEACHERS if fast else tiny.TEACHERS


def _check_on(method: Method, source: Teacher, fast: bool, extra: Sequence[Check]) -> list[Finding]:
    benches: list[Bench] = []

    def plan_and_compress() -> Iterator[str]:
        benches.append(prepare(method, source))
        fill(benches[0], FAST_BUDGETS if fast else BUDGETS)
        yield from ()

    findings = [_run("plans and compresses", source.label, plan_and_compress)]
    if findings[0].status == "passed":
        for each in (*CHECKS, *extra):
            if each.fast or not fast:
                findings.append(_run(each.title, source.label, _bound(each, benches[0])))
    return findings


def _bound(each: Check, bench: Bench) -> Callable[[], Iterable[str]]:
    return lambda: each.run(bench)


def _run(title: str, label: str, run: Callable[[], Iterable[str]]) -> Finding:
    started = time.perf_counter()
    status: Literal["passed", "failed", "n/a"]
    try:
        problem = next(iter(run()), None)
        status = "passed" if problem is None else "failed"
    except NotApplicable as reason:
        status, problem = "n/a", str(reason)
    except MethodError as error:
        status, problem = "failed", str(error)
    except Exception as error:
        status, problem = "failed", f"{_where(error)}: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
    seconds = time.perf_counter() - started
    return Finding(check=title, teacher=label, status=status, message=problem or "", seconds=round(seconds, 3))


def _where(error: Exception) -> str:
    """File and line of the deepest frame outside installed libraries."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "site-packages" not in frame.filename] or list(frames)
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
