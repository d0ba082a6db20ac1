"""For method authors: a starting point, and a check that says what is wrong."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import asdict
from pathlib import Path

from harness.errors import SpecError

TEMPLATE = '''"""{title}: one sentence on the idea, and the paper it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from methods.interface import Budget, Method, Plan, Refusal, Statistics
from methods.svd import Svd

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class {title}(Method):
    """What a reader of `weighin methods` sees. This starting point is truncated SVD: replace both methods."""

    def plan(self, teacher_config: PretrainedConfig, budget: Budget | None) -> Plan | Refusal:
        return Svd().plan(teacher_config, budget)

    def compress(self, teacher: PreTrainedModel, plan: Plan, *, seed: int, statistics: Statistics) -> PreTrainedModel:
        return Svd().compress(teacher, plan, seed=seed, statistics=statistics)
'''


def write_new_method(name: str) -> Path:
    """Write `methods/NAME.py`; SpecError when the name is no module name or is taken."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise SpecError(f"{name}: a method's name is a module's name, such as `block_diagonal`")
    import methods

    path = Path(methods.__file__).parent / f"{name}.py"
    if path.exists():
        raise SpecError(f"{path}: exists already")
    title = "".join(part.capitalize() for part in name.split("_"))
    path.write_text(TEMPLATE.format(title=title), encoding="utf-8")
    return path


def check_method(name: str, *, fast: bool, as_json: bool) -> int:
    """Print what the conformance kit finds; 0 when nothing is wrong, else 1."""
    from methods import registry

    registry.resolve(name)
    warnings.filterwarnings("ignore")
    from methods.conformance import check

    findings = check(name, fast=fast)
    failed = [finding for finding in findings if finding.status == "failed"]
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            print(
                f"{finding.status:6}  {finding.teacher:14}  {finding.check}"
                + (f": {finding.message}" if finding.message else "")
            )
        print(f"{name}: {len(findings) - len(failed)} of {len(findings)} checks hold")
    return 1 if failed else 0
