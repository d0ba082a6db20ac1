"""Killed in the middle of a distillation: the run continues from its checkpoint and ends with the same board."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from micro_sweep import board_rows, made, recipe, sweep, weighin, write

from results.artifacts import Artifacts, Attempt, Manifest
from results.store import Store, sha256

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

STEPS = 700
AFRESH = ("distill", "evaluate")
"""Stages that each test computes itself; it takes the others from the undisturbed run."""
MARK_S = 1e6
"""Added to the seconds that a checkpoint says training took: a result that counts them continued from it."""


@dataclass(frozen=True)
class Run:
    """A sweep on a local Ray, driven by a process of its own."""

    sweep: Path
    store: Path
    plugin: Path

    @contextmanager
    def driver(self) -> Iterator[subprocess.Popen[str]]:
        """The driver's process, which does not outlive the block."""
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        process = subprocess.Popen(
            [sys.executable, "-m", "harness", "run", str(self.sweep), "--store", str(self.store)],
            env=environment | {"PYTHONPATH": str(self.plugin)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()

    def to_the_end(self) -> None:
        with self.driver() as process:
            said, _ = process.communicate(timeout=200)
            assert process.returncode == 0, said

    @property
    def artifacts(self) -> Artifacts:
        return Artifacts(Store(str(self.store)))

    def distillation(self) -> list[Attempt]:
        """Its attempts, oldest first."""
        keys = self.artifacts.store.names("artifacts/distill")
        return self.artifacts.attempts("distill", keys[0]) if keys else []

    def student(self) -> Manifest:
        (found,) = self.artifacts.manifests("distill")
        return found

    def checkpoints(self) -> list[Path]:
        """The newest two complete ones; an older one may be on its way out."""
        return sorted(path.parent for path in self.store.glob("artifacts/distill/*/checkpoints/*/complete.json"))[-2:]

    def quality_and_size(self) -> Any:
        board = weighin("board", "--store", self.store, "--format", "json").data
        rows = {id: (row["status"], row["quality"], row["size"]) for id, row in board_rows(board).items()}
        return rows, [(tab["columns"], tab["comparisons"]) for tab in board["tabs"]]


@pytest.fixture(scope="module")
def undisturbed(plugin: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that nothing happens to."""
    root = tmp_path_factory.mktemp("undisturbed")
    long = recipe(tokens=STEPS * 128, losses={"ce": 0.5, "kd": 0.5})
    resources = {"distill": {"checkpoint_every_s": 0.2}}
    path = write(root / "micro.yaml", sweep(corpus, recipes=[long], resources=resources))
    run = Run(path, root / "store", plugin)
    run.to_the_end()
    return run


@pytest.fixture
def run(undisturbed: Run, tmp_path: Path) -> Run:
    """The same sweep, its student still to be distilled."""
    shutil.copytree(undisturbed.store, tmp_path / "store")
    for gone in ("records", *(f"artifacts/{stage}" for stage in AFRESH)):
        shutil.rmtree(tmp_path / "store" / gone)
    return Run(undisturbed.sweep, tmp_path / "store", undisturbed.plugin)


def wait(condition: Callable[[], Any], within_s: float = 90) -> None:
    until = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    """No such process, or one that only waits for its parent to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def mark(checkpoints: list[Path]) -> None:
    """Make what continues from these recognisable."""
    assert checkpoints
    for path in checkpoints:
        state = json.loads((path / "state.json").read_text())
        assert 0 < state["step"] < STEPS
        (path / "state.json").write_text(json.dumps(state | {"seconds": state["seconds"] + MARK_S}))
        complete = json.loads((path / "complete.json").read_text())
        size, checksum = (path / "state.json").stat().st_size, sha256(path / "state.json")
        complete["files"]["state.json"] = {"bytes": size, "sha256": checksum}
        (path / "complete.json").write_text(json.dumps(complete))


def assert_same_end(run: Run, undisturbed: Run) -> None:
    assert run.student().result["train_s"] > MARK_S
    before = {each for each in made(undisturbed.store) if each[0] not in AFRESH}
    assert {each for each in made(run.store) if each[0] not in AFRESH} == before
    assert run.quality_and_size() == undisturbed.quality_and_size()
    assert not run.checkpoints()


def test_a_killed_driver(run: Run, undisturbed: Run) -> None:
    with run.driver() as process:
        wait(lambda: len(run.checkpoints()) >= 2)
        process.send_signal(signal.SIGKILL)
        process.wait()
    (killed,) = run.distillation()
    wait(lambda: gone(killed.where["pid"]))
    assert not list(run.artifacts.manifests("distill"))
    mark(run.checkpoints())
    run.to_the_end()
    first, second = run.distillation()
    assert (first.id, second.status) == (killed.id, "done")
    assert run.student().attempt == second.id
    assert_same_end(run, undisturbed)


def test_a_killed_worker(run: Run, undisturbed: Run) -> None:
    """The driver starts another by itself."""
    with run.driver() as process:
        wait(lambda: len(run.checkpoints()) >= 2)
        (killed,) = run.distillation()
        os.kill(killed.where["pid"], signal.SIGSTOP)
        assert not list(run.artifacts.manifests("distill"))
        mark(run.checkpoints())
        os.kill(killed.where["pid"], signal.SIGKILL)
        said, _ = process.communicate(timeout=200)
        assert process.returncode == 0, said
    first, second = run.distillation()
    assert (first.id, first.status, first.failure_class) == (killed.id, "failed", "infrastructure")
    assert first.reason == "the worker process died"
    assert run.student().attempt == second.id
    assert_same_end(run, undisturbed)


def test_a_worker_that_is_asked_to_end(run: Run, undisturbed: Run) -> None:
    """As a cluster does before it takes a node away: the worker leaves a checkpoint of the step that it is at."""
    with run.driver() as process:
        wait(lambda: len(run.checkpoints()) >= 2)
        (asked,) = run.distillation()
        os.kill(asked.where["pid"], signal.SIGTERM)
        wait(lambda: len(run.distillation()) == 2 or run.distillation()[0].status == "failed", within_s=30)
        said, _ = process.communicate(timeout=200)
        assert process.returncode == 0, said
    first, second = run.distillation()
    assert (first.id, first.status, first.failure_class) == (asked.id, "failed", "infrastructure")
    assert re.fullmatch(r"asked to end \(SIGTERM\) after step \d+; its checkpoint is kept", first.reason)
    assert run.student().attempt == second.id
    assert run.quality_and_size() == undisturbed.quality_and_size()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_gang_of_which_one_worker_is_asked_to_end(
    rank: int, undisturbed: Run, plugin: Path, corpus: Path, tmp_path: Path
) -> None:
    """All workers leave a checkpoint of the same step, whichever was asked, and the next gang goes on from it."""
    shutil.copytree(undisturbed.store, tmp_path / "store")
    for gone in ("records", *(f"artifacts/{stage}" for stage in AFRESH)):
        shutil.rmtree(tmp_path / "store" / gone)
    long = recipe(tokens=STEPS * 128, losses={"ce": 0.5, "kd": 0.5})
    resources = {"distill": {"workers": 2, "checkpoint_every_s": 1000}}
    run = Run(
        write(tmp_path / "gang.yaml", sweep(corpus, recipes=[long], resources=resources)), tmp_path / "store", plugin
    )
    with run.driver() as process:
        wait(lambda: any(line.progress.get("done", 0) > 20 for line in run.distillation()))
        (asked,) = run.distillation()
        os.kill(asked.where["pid"] if rank == 0 else other_worker(asked.where["pid"]), signal.SIGTERM)
        said, _ = process.communicate(timeout=200)
        assert process.returncode == 0, said
    first, second = run.distillation()
    assert re.fullmatch(r"asked to end \(SIGTERM\) after step \d+; its checkpoint is kept", first.reason)
    assert (first.failure_class, second.status) == ("infrastructure", "done")
    (whole,) = undisturbed.artifacts.manifests("distill")
    # One worker and two sum in another order, and so many steps carry that on.
    assert run.student().result["final_loss"] == pytest.approx(whole.result["final_loss"], rel=1e-3)


def other_worker(pid: int) -> int:
    """The gang's other process: it has the same parent and the same name."""
    family = psutil.Process(pid).parent().children()
    (other,) = (each.pid for each in family if "RayTrainWorker" in " ".join(each.cmdline()) and each.pid != pid)
    return other
