"""For authors of tasks: a starting point, and a check that says what is wrong."""

from __future__ import annotations

import re
import sys
import time
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from harness.authoring import write_module
from harness.check_report import deliver_report
from harness.errors import SpecError

if TYPE_CHECKING:
    from tasks.conformance import Finding

TEMPLATE = '''"""{title}: one sentence on the text, where it comes from and who measures on it."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from tasks.interface import DataError
from tasks.perplexity import TokenPerplexity

FILE = Path("{name}.txt")


class {title}Text:
    """The lines of `FILE`, below the mirror."""

    def documents(self, mirror: Path | None) -> list[str]:
        return self._file(mirror).read_text(encoding="utf-8").splitlines()

    def fingerprint(self, mirror: Path | None) -> str:
        return f"sha256:{{sha256(self._file(mirror).read_bytes()).hexdigest()}}"

    def check(self, mirror: Path | None) -> None:
        self._file(mirror)

    def _file(self, mirror: Path | None) -> Path:
        if mirror is None or not (mirror / FILE).is_file():
            raise DataError(f"{name}: no {{FILE}} in the mirror {{mirror or '(--mirror or WEIGHIN_MIRROR)'}}")
        return mirror / FILE


class {title}(TokenPerplexity):
    """What a reader of `weighin tasks` sees. Anything that changes its numbers is a new version."""

    name = "{name}.token_ppl.v1"
    source = {title}Text()
'''


def write_new_task(name: str) -> tuple[Path, str]:
    """Write `tasks/NAME.py`; its path and the task's name. SpecError when NAME is no module name or is taken."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise SpecError(f"{name}: a task's file is a module, such as `house_style`")
    import tasks

    return write_module(Path(tasks.__file__).parent, name, TEMPLATE), f"{name}.token_ppl.v1"


def check_task(
    name: str, *, mirror: Path | None, as_json: bool, golden: Path | None = None, output: Path | None = None
) -> int:
    """Print what the conformance kit of tasks finds, or write it to `output`; 0 when nothing is wrong, else 1.

    Args:
        golden: a JSON file of outputs by task name, to compare with; one that it does not have yet is added.
    """
    started = time.perf_counter()
    findings = _findings(name, mirror, golden)
    seconds = time.perf_counter() - started
    return deliver_report(name, findings, seconds, lambda each: each.on, as_json=as_json, output=output)


def _findings(name: str, mirror: Path | None, golden: Path | None) -> list[Finding]:
    """What is printed meanwhile goes to stderr, so that stdout holds the report alone."""
    from tasks import registry

    registry.resolve(name)
    with warnings.catch_warnings(), redirect_stdout(sys.stderr):
        warnings.filterwarnings("ignore")
        from harness.items_check import ITEMS_CHECK
        from tasks import conformance

        return conformance.check(name, mirror=mirror, golden=golden, extra=[ITEMS_CHECK])
