"""What a command imports: listing and reading answer at once, because nothing heavy is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from micro_sweep import sweep, write

HEAVY = ("torch", "transformers", "datasets", "lm_eval", "deepspeed", "ray", "tensorly", "cluster")

LISTING = """
import sys
from harness.cli import main
try:
    main(sys.argv[1:])
except SystemExit as stop:
    assert not stop.code, stop.code
print("IMPORTED", *(name for name in {heavy!r} if name in sys.modules))
"""


def imported(*arguments: object) -> set[str]:
    """Heavy packages that a command loads, in a new process."""
    code = LISTING.format(heavy=HEAVY)
    command = [sys.executable, "-c", code, *(str(argument) for argument in arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 0, ended.stderr
    return set(ended.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize("arguments", [["--help"], ["methods"], ["tasks"], ["board", "--store", "nowhere"]])
def test_listing_and_reading_import_nothing_heavy(arguments: list[str]) -> None:
    assert imported(*arguments) == set()


def test_planning_imports_no_cluster_and_no_engine(corpus: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "micro.yaml", sweep(corpus, tasks=["pydoc.token_ppl.v1"]))
    found = imported("plan", path, "--store", tmp_path / "store")
    assert "transformers" in found
    assert found.isdisjoint({"ray", "cluster", "deepspeed", "lm_eval", "datasets"})
