"""The conformance kit: does a method keep the contract, on tiny GPT-2 and Llama teachers, on one CPU?"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from methods import registry, tiny
from methods.conformance_checks import CHECKS, Bench, Check, NotApplicable, Sample
from methods.interface import Budget, Method, MethodError, Plan, Refusal

BUDGETS = (0.7, 0.85, 1.0)
FAST_BUDGETS = (0.7, 1.0)
FAST_TEACHERS = ("gpt2", "llama-untied")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check found on one teacher."""

    check: str
    teacher: str
    status: Literal["passed", "failed", "n/a"]
    message: str = ""
    """What is wrong, or why the check does not apply, in one line."""


def check(name: str, *, fast: bool = False) -> list[Finding]:
    """Run every check on the method `name` with its default fields; `fast` takes seconds.

    Raises:
        MethodError: there is no method of that name, or its file does not import.
    """
    kind = registry.load(name)
    try:
        method = kind()
    except TypeError as error:
        return [Finding(check="fields have defaults", teacher="-", status="failed", message=str(error))]
    return check_method(method, fast=fast)


def check_method(method: Method, *, fast: bool = False) -> list[Finding]:
    """Run every check on `method` as it is."""
    findings: list[Finding] = []
    for label in FAST_TEACHERS if fast else tiny.TEACHERS:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            findings += _check_on(method, label, fast)
        finally:
            torch.set_num_threads(threads)
    return findings


def _check_on(method: Method, label: str, fast: bool) -> Iterator[Finding]:
    teacher = tiny.teacher(label)
    samples: list[Sample] = []

    def plan_and_compress() -> Iterator[str]:
        for fraction in FAST_BUDGETS if fast else BUDGETS:
            budget, plan = _plan(method, label, fraction)
            samples.append(
                Sample(budget=budget, plan=plan, student=method.compress(teacher, plan, seed=0, statistics={}))
            )
            if budget is None:
                return
        yield from ()

    bench = Bench(method=method, label=label, teacher=teacher, samples=samples)
    yield _run("plans and compresses", label, plan_and_compress)
    if samples:
        for each in CHECKS:
            if each.fast or not fast:
                yield _run(each.title, label, _bound(each, bench))


def _bound(each: Check, bench: Bench) -> Callable[[], Iterator[str]]:
    return lambda: each.run(bench)


def _plan(method: Method, label: str, fraction: float) -> tuple[Budget | None, Plan]:
    """The plan for a fraction of the teacher, or for the nearest one that the method says it can reach."""
    config = tiny.config(label)
    budget = Budget(value=fraction) if method.budgeted else None
    answer = method.plan(config, budget)
    if isinstance(answer, Plan):
        return budget, answer
    if answer.nearest is None:
        raise MethodError(f"plan refuses {fraction} of {label} ({answer.reason}) and names no nearest fraction")
    budget = Budget(value=answer.nearest)
    again = method.plan(config, budget)
    if isinstance(again, Refusal):
        raise MethodError(f"plan refuses {fraction} of {label} and then {answer.nearest:.4f}, which it named itself")
    return budget, again


def _run(title: str, label: str, run: Callable[[], Iterator[str]]) -> Finding:
    try:
        problem = next(iter(run()), None)
    except NotApplicable as reason:
        return Finding(check=title, teacher=label, status="n/a", message=str(reason))
    except MethodError as error:
        problem = str(error)
    except Exception as error:
        problem = f"{_where(error)}: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
    status: Literal["passed", "failed"] = "passed" if problem is None else "failed"
    return Finding(check=title, teacher=label, status=status, message=problem or "")


def _where(error: Exception) -> str:
    """File and line of the deepest frame outside installed libraries."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "site-packages" not in frame.filename] or list(frames)
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
