"""For method authors: a starting point, and a check that says what is wrong."""

from __future__ import annotations

import re
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.check_report import deliver_report
from harness.errors import SpecError
from harness.yaml_loader import parse

if TYPE_CHECKING:
    from methods.conformance import Finding

TEMPLATE = '''"""{title}: one sentence on the idea, and the paper it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from methods.families import Matrix, architecture
from methods.interface import Budget, Method, Plan, Refusal, Statistics
from methods.layers.low_rank import LowRankLinear
from methods.planning import accept, student_size, uniform_ranks
from methods.scope import Layers, select

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class {title}(Method):
    """What a reader of `weighin methods` sees.

    This starting point is truncated SVD: W (out x in) ~ L R with L (out x r) and R (r x in). Replace what `plan`
    solves for and what `compress` computes; say here where the idea comes from and what the source leaves open.
    """

    layers: Layers = "all"
    """Blocks in scope, counted from 0. A field is a knob in YAML."""

    def plan(self, teacher_config: PretrainedConfig, budget: Budget | None) -> Plan | Refusal:
        assert budget is not None, "{name} is budgeted"
        dense = architecture(teacher_config)
        scope = select(dense, self.layers)
        outside = dense.num_params - sum(each.size for each in scope)
        ranks = uniform_ranks(scope, budget.target(dense.num_params) - outside, _size)
        surgery = {{
            each.path: {{"type": LowRankLinear.kind, "rank": rank}}
            for each, rank in zip(scope, ranks, strict=True)
            if rank is not None
        }}
        plan = Plan(size=student_size(dense, surgery), surgery=surgery)
        return accept(budget, plan, dense.num_params, f"{{len(scope)}} matrices are in scope, at ranks of 1 or more")

    def compress(self, teacher: PreTrainedModel, plan: Plan, *, seed: int, statistics: Statistics) -> PreTrainedModel:
        from methods.student import from_teacher

        return from_teacher(teacher, plan, _factors)


def _size(matrix: Matrix, rank: int) -> int:
    return rank * (matrix.out_features + matrix.in_features)


def _factors(path: str, weight: Tensor, spec: Mapping[str, Any]) -> dict[str, Tensor]:
    """What the layer at `path` holds in place of `weight` (out x in)."""
    from methods.truncated_svd import truncated_svd

    left, right = truncated_svd(weight, spec["rank"])
    return {{"left": left, "right": right}}
'''


def write_new_method(name: str) -> Path:
    """Write `methods/NAME.py`; SpecError when the name is no module name or is taken."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise SpecError(f"{name}: a method's name is a module's name, such as `block_diagonal`")
    import methods

    return write_module(Path(methods.__file__).parent, name, TEMPLATE)


def write_module(directory: Path, name: str, template: str) -> Path:
    """Write `name`.py from a template with `name` and `title`; SpecError when there is a module of that name."""
    path = directory / f"{name}.py"
    if path.exists() or path.with_suffix("").exists():
        raise SpecError(f"{path}: exists already")
    title = "".join(part.capitalize() for part in name.split("_"))
    path.write_text(template.format(title=title, name=name), encoding="utf-8")
    return path


def check_method(
    name: str,
    *,
    fast: bool,
    as_json: bool,
    teachers: Sequence[str] = (),
    fields: Sequence[str] = (),
    output: Path | None = None,
) -> int:
    """Print what the conformance kit finds, or write it to `output`; 0 when nothing is wrong, else 1.

    Args:
        teachers: tiny teachers by label, or local model directories.
        fields: `key=value`, each value as YAML writes it.
    """
    started = time.perf_counter()
    findings = _findings(name, fast, teachers, _parsed(fields))
    seconds = time.perf_counter() - started
    return deliver_report(name, findings, seconds, lambda each: each.teacher, as_json=as_json, output=output)


def _parsed(fields: Sequence[str]) -> dict[str, Any]:
    pairs = [each.partition("=") for each in fields]
    for each, (key, equals, _) in zip(fields, pairs, strict=True):
        if not (key and equals):
            raise SpecError(f"--field {each}: write key=value, such as layers=odd")
    return {key: parse(value, f"--field {key}") for key, _, value in pairs}


def _findings(name: str, fast: bool, teachers: Sequence[str], fields: dict[str, Any]) -> list[Finding]:
    """What is printed meanwhile goes to stderr, so that stdout holds the report alone."""
    from methods import registry

    registry.resolve(name)
    with warnings.catch_warnings(), redirect_stdout(sys.stderr):
        warnings.filterwarnings("ignore")
        from methods import conformance
        from methods.fields import decode

        extra = []
        if not fast:
            from harness.zero_check import ZERO_CHECK

            extra = [ZERO_CHECK]
        if fields:
            return conformance.check_method(decode(name, fields), fast=fast, teachers=teachers, extra=extra)
        return conformance.check(name, fast=fast, teachers=teachers, extra=extra)
