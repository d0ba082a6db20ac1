"""From a mirror with test sets to the archive that the GLUE server takes, and what fine-tuning stores on the way."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from micro_sweep import WORDS, board_rows, sweep, weighin, write

from harness import glue_submission
from methods import student
from results.artifacts import Artifacts
from results.store import Store
from tasks import glue_server
from tasks.glue import REPO

pytestmark = pytest.mark.sweep

TASKS = ("glue.cola.v1", "glue.mnli.v1", "glue.stsb.v1")
ROWS = {
    "cola": {"train": 24, "validation": 16, "test": 5},
    "mnli": {"train": 24, "validation_matched": 9, "validation_mismatched": 9, "test_matched": 4, "test_mismatched": 3},
    "ax": {"test": 6},
    "stsb": {"train": 24, "validation": 16, "test": 7},
}
COLUMNS = {"cola": ("sentence",), "mnli": ("premise", "hypothesis"), "ax": ("premise", "hypothesis")}
MADE = {
    name: replace(file, rows=ROWS.get(file.config, {}).get(file.split, 2)) for name, file in glue_server.FILES.items()
}
FINETUNE = {"learning_rate": 1e-2, "epochs": 1, "batch_examples": 8, "max_length": 24}


def write_mirror(root: Path, *, test: bool = True) -> Path:
    draw = random.Random(0)
    labels = {"cola": lambda: draw.randrange(2), "stsb": lambda: draw.uniform(0, 5)}
    for config, splits in ROWS.items():
        for split, count in splits.items():
            if split.startswith("test") and not test:
                continue
            names = COLUMNS.get(config, ("sentence1", "sentence2"))
            texts = {
                name: [" ".join(draw.choices(WORDS, k=draw.randrange(1, 12))) for _ in range(count)] for name in names
            }
            label = [-1 if "test" in split else labels.get(config, lambda: draw.randrange(3))() for _ in range(count)]
            directory = root / "datasets" / REPO / config
            directory.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table(texts | {"label": label}), directory / f"{split}-00000-of-00001.parquet")
    return root


def content(corpus: Path, **changes: Any) -> dict[str, Any]:
    tasks = [{"task": name, "predict_test": True} for name in TASKS]
    return sweep(corpus, methods=["identity"], recipes=["none"], tasks=tasks, finetune=FINETUNE) | changes


class Ran:
    def __init__(self, store: Path, mirror: Path) -> None:
        self.store, self.mirror = store, mirror
        (self.record,) = Store(str(store)).records()
        self.artifacts = Artifacts(Store(str(store)))

    def directory(self, task: str) -> Path:
        return self.artifacts.directory("finetune", self.record.stages[task])

    def submit(self, *options: object) -> Any:
        return weighin("glue-submission", self.record.row, "--store", self.store, *options)


@pytest.fixture(scope="module")
def ran(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    root = tmp_path_factory.mktemp("glue")
    mirror = write_mirror(root / "mirror")
    path = write(root / "glue.yaml", content(corpus))
    ended = weighin("run", path, "--store", root / "store", "--mirror", mirror, "--on", "inline")
    assert ended.code == 0, ended
    return Ran(root / "store", mirror)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server expects as many rows as the mirror has."""
    monkeypatch.setattr(glue_submission, "FILES", MADE)


def expected(ran: Ran, task: str, config: str, split: str) -> list[float]:
    """Each text alone through the model that the stage kept."""
    from transformers import AutoTokenizer

    source = ran.directory(task) / "model"
    model = student.load(source, head="classification")
    tokenizer = AutoTokenizer.from_pretrained(source)
    (file,) = (ran.mirror / "datasets" / REPO / config).glob(f"{split}-*")
    table = pq.ParquetFile(file).read()
    texts = [table.column(name).to_pylist() for name in COLUMNS.get(config, ("sentence1", "sentence2"))]
    found = []
    for row in zip(*texts, strict=True):
        ids = tokenizer("<|endoftext|>".join(row))["input_ids"]
        assert len(ids) <= 24, "nothing is cut"
        with torch.no_grad():
            logits = model.score(model.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1])
        found.append(logits.item() if len(logits) == 1 else int(logits.argmax()))
    return found


def test_the_archive_is_what_the_server_takes(ran: Ran, small: None, tmp_path: Path) -> None:
    ended = ran.submit("-o", tmp_path / "glue.zip", "--fill-missing")
    filled = ["MRPC", "QNLI", "QQP", "RTE", "SST-2", "WNLI"]
    assert (
        ended.out
        == f"wrote {tmp_path / 'glue.zip'}: predictions of {ran.record.id}; a constant in {', '.join(filled)}\n"
    )
    with ZipFile(tmp_path / "glue.zip") as archive:
        files = {name.removesuffix(".tsv"): archive.read(name).decode() for name in archive.namelist()}
    assert sorted(files) == sorted(glue_server.FILES)
    for name, text in files.items():
        lines = [line.split("\t") for line in text.splitlines()]
        assert lines[0] == ["index", "prediction"]
        assert [line[0] for line in lines[1:]] == [str(row) for row in range(MADE[name].rows)]
        file = MADE[name]
        if name in filled:
            assert {line[1] for line in lines[1:]} == {file.labels[0]}
        elif name == "STS-B":
            scores = [min(5.0, max(0.0, value)) for value in expected(ran, file.protocol, file.config, file.split)]
            assert [float(line[1]) for line in lines[1:]] == pytest.approx(scores, abs=6e-4)
        else:
            classes = [file.labels[int(value)] for value in expected(ran, file.protocol, file.config, file.split)]
            assert [line[1] for line in lines[1:]] == classes
    assert files["RTE"].splitlines()[1] == "0\tentailment"


def test_the_same_predictions_are_the_same_bytes(ran: Ran, small: None, tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        ran.submit("-o", tmp_path / name, "--fill-missing")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_what_is_missing_is_named(ran: Ran, small: None, tmp_path: Path) -> None:
    ended = ran.submit("-o", tmp_path / "glue.zip")
    assert ended.code == 2
    assert ended.err == (
        f"error: {ran.record.id}: no test predictions for MRPC, QNLI, QQP, RTE, SST-2, WNLI; run the tasks with "
        "`predict_test: true`, or give --fill-missing\n"
    )
    assert not (tmp_path / "glue.zip").exists()


def test_too_few_predictions_are_refused(ran: Ran, tmp_path: Path) -> None:
    ended = ran.submit("-o", tmp_path / "glue.zip", "--fill-missing")
    assert ended.code == 2
    assert f"{ran.record.id}: 6 test predictions for AX; the server expects 1104" in ended.err


def test_an_unknown_row_and_an_impossible_place(ran: Ran, small: None, tmp_path: Path) -> None:
    ended = weighin("glue-submission", "nowhere", "--store", ran.store)
    assert (ended.code, "nowhere: no such row in store" in ended.err) == (2, True)
    ended = ran.submit("-o", tmp_path / "none" / "glue.zip", "--fill-missing")
    assert (ended.code, "glue.zip: cannot be written: No such file or directory" in ended.err) == (2, True)


def test_items_hold_logits_and_which_metric_they_are_of(ran: Ran) -> None:
    items = pq.ParquetFile(ran.directory("glue.mnli.v1") / "items.parquet").read().to_pydict()
    assert items["in_accuracy"] == [row < 9 for row in range(18)]
    assert items["in_accuracy_mismatched"] == [row >= 9 for row in range(18)]
    logits = torch.tensor([items[f"logit_{label}"] for label in range(3)])
    assert logits.argmax(0).tolist() == items["prediction"]
    regression = pq.ParquetFile(ran.directory("glue.stsb.v1") / "items.parquet").read().to_pydict()
    assert regression["logit_0"] == regression["prediction"]
    assert not [name for name in regression if name.startswith("in_")]


def test_mnli_s_interval_is_over_its_matched_examples(ran: Ran) -> None:
    (row,) = board_rows(weighin("board", "--format", "json", "--store", ran.store).data).values()
    (score,) = (score for key, score in row["quality"].items() if key.startswith("glue.mnli.v1|accuracy|"))
    assert (score["basis"], score["items"]) == ("items only", 9)


def test_a_mirror_without_the_test_set_is_refused(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", "/nonexistent")
    mirror = write_mirror(tmp_path / "mirror", test=False)
    path = write(tmp_path / "glue.yaml", content(corpus))
    ended = weighin("run", path, "--store", tmp_path / "store", "--mirror", mirror, "--on", "inline")
    assert ended.code == 2
    assert "data set nyu-mll/glue, config cola, split test: not in the mirror" in ended.err


def test_predicting_the_test_set_is_part_of_a_stage_and_of_no_column(ran: Ran, corpus: Path, tmp_path: Path) -> None:
    from harness.planner import plan_sweep
    from harness.spec import load_sweep

    for tasks in ([{"task": name, "predict_test": True} for name in TASKS], list(TASKS)):
        path = write(tmp_path / "glue.yaml", content(corpus, tasks=tasks))
        (cell,) = plan_sweep(load_sweep(path), ran.mirror).cells
        asked = isinstance(tasks[0], dict)
        assert (cell.stages["glue.cola.v1"].key == ran.record.stages["glue.cola.v1"]) is asked
        assert cell.stages["glue.cola.v1"].data == next(m.data for m in ran.record.measured)
