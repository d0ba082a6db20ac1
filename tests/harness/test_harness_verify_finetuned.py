"""Verification of fine-tuned tasks: a teacher's classifier is kept, a student's predictions alone."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from micro_sweep import recipe, sweep, weighin, write

from results.artifacts import Artifacts
from results.load import choose
from results.record import Record
from results.store import Store

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher and a student, fine-tuned on a task whose texts ship with Python."""
    root = tmp_path_factory.mktemp("tuned")
    content = sweep("", corpus={"embedded": True}, tasks=[{"task": "pydoc.follows.v1", "train_rows": 64}])
    content["teacher"]["pretrain"]["recipe"] = recipe()
    content["finetune"] = {"epochs": 1, "batch_examples": 16, "max_length": 32, "learning_rate": 1e-3}
    ended = weighin("run", write(root / "tuned.yaml", content), "--store", root / "store", "--on", "inline")
    assert ended.code == 0, ended
    return root / "store"


def record_of(store: Path, method: str) -> Record:
    return next(record for record in choose(Store(str(store)).records()) if record.cell.method == method)


@pytest.mark.parametrize(
    ("method", "how", "verdict"), [("identity", "re-evaluated", "holds"), ("svd", "recomputed", "recomputed")]
)
def test_a_classifier_that_is_kept_is_evaluated_again(store: Path, method: str, how: str, verdict: str) -> None:
    ended = weighin("verify", record_of(store, method).row, "--store", store, "--json")
    assert ended.code == 0, ended
    (found,) = ended.data
    assert found["verdict"] == verdict
    assert {(metric["how"], metric["difference"]) for metric in found["metrics"]} == {(how, 0.0)}
    board = weighin("board", "--store", store, "--format", "md").out
    assert (f"{record_of(store, method).row} ✓" in board) == (verdict == "holds")


def test_forged_predictions_are_caught(store: Path) -> None:
    record = record_of(store, "svd")
    (measured,) = (each for each in record.measured if each.main)
    manifest = Artifacts(Store(str(store))).manifest("finetune", measured.stage_key)
    assert manifest is not None
    path = store / str(measured.items_path)
    before = path.read_bytes()
    items = pq.read_table(path).to_pydict()

    pq.write_table(pa.table(items | {"prediction": items["label"], "correct": [1.0] * len(items["label"])}), path)
    try:
        (found,) = weighin("verify", record.row, "--store", store, "--json").data
    finally:
        path.write_bytes(before)
    assert found["verdict"] == "inconsistent"
    named = " ".join(check["problem"] for check in found["checks"])
    assert "items.parquet is not what was published" in named
    assert "items file is damaged" in named
    metric = next(metric for metric in found["metrics"] if metric["metric"] == measured.metric)
    assert (metric["how"], metric["holds"]) == ("not checked", None)
    assert "missing or damaged" in metric["note"]
