"""Cells that fail or are skipped: the reason on the board, the others finished, no second try unless asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from micro_sweep import Ended, board_rows, made, recipe, sweep, weighin, write
from transformers import GPT2Config, GPT2LMHeadModel

from methods import student
from results.artifacts import Artifacts, Attempt
from results.store import Store
from tasks.tokenizer import train

pytestmark = pytest.mark.sweep

METHODS = ["identity", "raises", "not_a_number", "too_large", "svd"]


@pytest.fixture(scope="module")
def teacher(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random teacher in a directory."""
    directory = tmp_path_factory.mktemp("teacher")
    tokenizer = train([file.read_text() for file in sorted(corpus.rglob("*.txt"))], 300)
    torch.manual_seed(0)
    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    config = GPT2Config(vocab_size=300, n_layer=2, n_embd=16, n_head=2, n_positions=32, **ends)
    student.save(GPT2LMHeadModel(config), directory, tokenizer)
    return directory


class Run:
    """A training-free sweep over a few methods, in a store of its own."""

    def __init__(self, root: Path, corpus: Path, teacher: Path, **changes: Any) -> None:
        given = {"teacher": {"name": "t", "directory": str(teacher)}, "methods": METHODS, "recipes": ["none"]}
        self.path, self.store = write(root / "micro.yaml", sweep(corpus, **given | changes)), root / "store"

    def __call__(self, command: str = "run", *options: str) -> Ended:
        return weighin(command, self.path, "--store", self.store, "--on", "inline", *options)

    def rows(self) -> Mapping[str, Mapping[str, Any]]:
        """Method -> its row."""
        rows = board_rows(weighin("board", "--store", self.store, "--format", "json").data)
        return {row["method"]: row for row in rows.values()}

    def attempts(self) -> int:
        """Of all compress stages, finished or not."""
        artifacts = Artifacts(Store(str(self.store)))
        keys = artifacts.store.names("artifacts/compress")
        return sum(len(artifacts.attempts("compress", key)) for key in keys)


@pytest.fixture(scope="module")
def run(plugin: Path, corpus: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three methods that fail, each in its way, among two that do not."""
    return Run(tmp_path_factory.mktemp("failures"), corpus, teacher)


def test_the_others_finish_and_the_exit_code_is_one(run: Run) -> None:
    ended = run()
    assert ended.code == 1
    assert "Traceback" not in ended.out + ended.err
    assert {method: row["status"] for method, row in run.rows().items()} == {
        "identity": "complete",
        "raises": "failed",
        "not_a_number": "failed",
        "too_large": "failed",
        "svd": "complete",
    }
    for reason in ("no convergence", "not finite", "parameters, +25"):
        assert reason in ended.out


@pytest.mark.parametrize(
    ("method", "failure_class", "reason"),
    [
        ("raises", "method", "compress raises params=0.8: RuntimeError: no convergence"),
        ("not_a_number", "method", "compress not_a_number params=0.8: the compressed student's outputs are not finite"),
        ("too_large", "budget", "compress too_large params=0.8: the student has 11,904 parameters, +25.0%"),
    ],
)
def test_a_failure_says_why(run: Run, method: str, failure_class: str, reason: str) -> None:
    run()
    row = run.rows()[method]
    assert row["reason"].startswith(reason)
    assert row["quality"] == {}
    shown = weighin("show", row["id"], "--store", run.store)
    assert reason.partition(": ")[2] in " ".join(shown.out.split())
    records = [record for record in Store(str(run.store)).records() if record.cell.method == method]
    assert [record.failure.failure_class for record in records if record.failure] == [failure_class]
    assert "Traceback" in json.dumps([record.failure.log_tail for record in records if record.failure])
    key = records[0].stages["compress"]
    assert not [path for path in (run.store / "artifacts" / "compress" / key).iterdir() if path.is_dir()]


def test_a_failure_is_tried_again_only_when_asked_for(run: Run) -> None:
    run()
    before, records = run.attempts(), len(Store(str(run.store)).records())
    assert run().code == 1
    assert run.attempts() == before == 5
    assert len(Store(str(run.store)).records()) == records
    planned = weighin("plan", run.path, "--store", run.store, "--json").data
    assert {s["label"] for s in planned["stages"] if s["state"] == "failed before"} == {
        f"compress {method} params=0.8" for method in ("raises", "not_a_number", "too_large")
    }
    done = made(run.store)
    assert run("rerun", "--failed").code == 1
    assert run.attempts() == before + 3
    assert made(run.store) == done


def test_a_mended_method_replaces_its_failure(
    plugin: Path, corpus: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What failed for a reason outside its code: `rerun --failed` finishes the cell."""
    import third_party

    once = Run(tmp_path, corpus, teacher, methods=["raises"])
    assert once().code == 1
    monkeypatch.setattr(third_party.Raises, "compress", third_party.Svd.compress)
    assert once().code == 1
    assert once("rerun", "--failed").code == 0
    assert once.rows()["raises"]["status"] == "complete"
    assert once().code == 0


def test_a_refused_budget_is_skipped_and_no_failure(plugin: Path, corpus: Path, teacher: Path, tmp_path: Path) -> None:
    skipping = Run(tmp_path, corpus, teacher, methods=["identity", "svd"], budgets=[{"params": 0.05}])
    ended = skipping()
    assert ended.code == 0
    row = skipping.rows()["svd"]
    assert row["status"] == "skipped"
    assert "nearest is 0." in row["reason"]
    assert row["reason"].split(";")[0] in " ".join(ended.out.split())


def test_a_loss_that_is_not_finite_is_an_outcome(plugin: Path, corpus: Path, teacher: Path, tmp_path: Path) -> None:
    wild = recipe(learning_rate=1e30, schedule="constant", warmup_fraction=0.0, gradient_clipping=0.0)
    diverging = Run(tmp_path, corpus, teacher, methods=["svd"], recipes=["none", wild])
    ended = diverging()
    assert ended.code == 1
    failed, complete = sorted(Store(str(diverging.store)).records(), key=lambda record: record.status != "failed")
    assert failed.failure is not None
    assert failed.failure.failure_class == "diverged"
    assert "is not finite at step" in failed.reason
    assert complete.status == "complete"


def test_running_out_of_memory_halves_the_micro_batch_and_goes_on(
    plugin: Path, corpus: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.engine.objective import LanguageModelObjective

    whole = LanguageModelObjective.forward

    def two_rows_at_most(self: Any, batch: Any) -> Any:
        if len(batch["input_ids"]) > 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return whole(self, batch)

    taught = recipe(losses={"ce": 0.5, "kd": 0.5})
    (tmp_path / "roomy").mkdir()
    roomy = Run(tmp_path / "roomy", corpus, teacher, methods=["svd"], recipes=[taught])
    assert roomy().code == 0
    monkeypatch.setattr(LanguageModelObjective, "forward", two_rows_at_most)
    tight = Run(tmp_path, corpus, teacher, methods=["svd"], recipes=[taught])
    ended = tight()
    assert ended.code == 0, ended.out
    assert "out of memory at micro-batch 4" in ended.out
    assert "goes on with micro_batch 1" in ended.out
    artifacts = Artifacts(Store(str(tight.store)))
    (manifest,) = artifacts.manifests("distill")
    attempts = artifacts.attempts("distill", manifest.key)
    assert [(a.status, a.failure_class, a.retry) for a in attempts] == [
        ("failed", "out_of_memory", {"micro_batch": 2}),
        ("failed", "out_of_memory", {"micro_batch": 1}),
        ("done", "", {}),
    ]
    assert manifest.execution["micro_batch"] == 1
    (expected,) = Artifacts(Store(str(roomy.store))).manifests("distill")
    assert manifest.result["final_loss"] == pytest.approx(expected.result["final_loss"], rel=1e-5)
    assert tight.rows()["svd"]["status"] == "complete"


def test_a_driver_that_died_after_an_out_of_memory_goes_on_with_less(
    plugin: Path, corpus: Path, teacher: Path, tmp_path: Path
) -> None:
    run = Run(tmp_path, corpus, teacher, methods=["svd"], recipes=[recipe()])
    run("run", "--set", "recipes=[none]")
    plan = weighin("plan", run.path, "--store", run.store, "--json").data
    (key,) = (stage["key"] for stage in plan["stages"] if stage["label"].startswith("distill"))
    lost = {"failure_class": "out_of_memory", "reason": "out of memory", "retry": {"micro_batch": 2}}
    Artifacts(Store(str(run.store))).note(
        Attempt(id="20260101T000000", stage="distill", key=key, status="failed", **lost)
    )
    assert run().code == 0
    (manifest,) = Artifacts(Store(str(run.store))).manifests("distill")
    assert manifest.execution["micro_batch"] == 2
