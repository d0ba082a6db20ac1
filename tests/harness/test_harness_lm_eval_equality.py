"""The same numbers as lm-eval's own command line gives for the exported model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from micro_sweep import board_rows, recipe, sweep, weighin, write, write_corpus

from tasks.lm_eval_index import root
from tasks.wikitext_pages import REPO, pages

pytestmark = pytest.mark.mirror

ROWS = {"sst2": 60, "rte": 30, "cola": 60}
"""The first so many documents: full-size equality holds as well, and takes minutes. WikiText-2 is whole."""
ACCURACY = [{"metric": "acc"}]
"""For cola: lm-eval has mcc, and its command line draws 100,000 samples for the error of that, which takes minutes."""
METRICS = {
    "wikitext": ("word_perplexity", "byte_perplexity", "bits_per_byte"),
    "sst2": ("acc",),
    "rte": ("acc",),
    "cola": ("acc",),
}
PAGES = {"word_ppl": "word_perplexity", "byte_ppl": "byte_perplexity", "bits_per_byte": "bits_per_byte"}
DIGITS = 1e-6


@pytest.fixture(scope="module")
def small_mirror(mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The start of three GLUE tasks' validation splits, WikiText-2's lines, and the pages rebuilt from these."""
    small = tmp_path_factory.mktemp("mirror")
    for task, rows in ROWS.items():
        copy(mirror, small, f"nyu-mll/glue/{task}", "validation", rows)
    lines = copy(mirror, small, f"{REPO}/wikitext-2-raw-v1", "test").column("text").to_pylist()
    save(small, "EleutherAI/wikitext_document_level/wikitext-2-raw-v1", "test", pa.table({"page": pages(lines)}))
    return small


def copy(mirror: Path, small: Path, config: str, split: str, rows: int | None = None) -> pa.Table:
    (file,) = (mirror / "datasets" / config).glob(f"{split}-*.parquet")
    table = pq.read_table(file).slice(0, rows)
    save(small, config, split, table)
    return table


def save(small: Path, config: str, split: str, table: pa.Table) -> None:
    (small / "datasets" / config).mkdir(parents=True)
    pq.write_table(table, small / "datasets" / config / f"{split}-00000-of-00001.parquet")


@pytest.fixture(scope="module")
def ran(small_mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mapping[str, Any]]:
    """A store with a dense teacher and a factorised student, measured through lm-eval; row id -> row."""
    directory = tmp_path_factory.mktemp("ran")
    config = {"n_layer": 2, "n_embd": 32, "n_head": 2, "n_positions": 192, "vocab_size": 300}
    asked = sweep(
        write_corpus(directory / "corpus"),
        teacher={"name": "micro", "pretrain": {"config": config, "recipe": recipe()}},
        recipes=["none"],
        tasks=["wikitext2.lm_eval.v1", *(f"lm_eval:{task}" for task in METRICS)],
    )
    path, store = write(directory / "sweep.yaml", asked), directory / "store"
    ended = weighin("run", path, "--store", store, "--mirror", small_mirror, "--on", "inline")
    assert ended.code == 0, ended.out + ended.err
    rows = board_rows(weighin("board", "--store", store, "--format", "json").data)
    assert {row["method"] for row in rows.values()} == {"identity", "svd"}
    return store, rows


@pytest.mark.timeout(300)
@pytest.mark.parametrize("method", ["identity", "svd"])
def test_equals_lm_evals_command_line_on_the_exported_model(
    method: str, ran: tuple[Path, Mapping[str, Any]], small_mirror: Path, tmp_path: Path
):
    store, rows = ran
    (row,) = (name for name, each in rows.items() if each["method"] == method)
    assert weighin("export", row, tmp_path / "model", "--store", store).code == 0
    theirs = command_line(tmp_path / "model", small_mirror, tmp_path)
    ours = measured(store, row)
    for task, metrics in METRICS.items():
        for metric in metrics:
            expected = theirs[f"{task}_here"][f"{metric},none"]
            assert ours[task][metric] == pytest.approx(expected, rel=DIGITS, abs=DIGITS), (task, metric)
    for name, metric in PAGES.items():
        assert ours["wikitext2.lm_eval.v1"][name] == pytest.approx(
            theirs["wikitext_here"][f"{metric},none"], rel=DIGITS
        )


def measured(store: Path, row: str) -> dict[str, dict[str, float]]:
    """Task -> metric -> value, as recorded; of cola also the accuracy, from its items."""
    found: dict[str, dict[str, float]] = {}
    for record in (store / "records").glob(f"{row}-*.json"):
        for each in json.loads(record.read_text())["measured"]:
            task = each["protocol"].split(".")[1] if each["protocol"].startswith("lm_eval.") else each["protocol"]
            found.setdefault(task, {})[each["metric"]] = each["value"]
            if task == "cola":
                items = pq.read_table(store / each["items_path"]).to_pandas()
                found[task]["acc"] = (items.prediction == items.label).mean()
    return found


def command_line(model: Path, mirror: Path, directory: Path) -> dict[str, dict[str, float]]:
    """Results of `python -m lm_eval` on a model directory, by task; the data come from files."""
    tasks = directory / "tasks"
    tasks.mkdir()
    for task in METRICS:
        own = "wikitext/wikitext.yaml" if task == "wikitext" else f"glue/{task}/default.yaml"
        split = "test" if task == "wikitext" else "validation"
        config = (
            "EleutherAI/wikitext_document_level/wikitext-2-raw-v1" if task == "wikitext" else f"nyu-mll/glue/{task}"
        )
        redirected = {
            "include": str(root() / own),
            "task": f"{task}_here",
            "tag": None,
            "dataset_path": "parquet",
            "dataset_name": None,
            "dataset_kwargs": {
                "data_files": {split: str(next((mirror / "datasets" / config).glob("*.parquet")))},
                "cache_dir": str(directory / "cache"),
            },
            "training_split": None,
            **({"validation_split": None} if split == "test" else {}),
            **({"metric_list": ACCURACY} if task == "cola" else {}),
        }
        (tasks / f"{task}.yaml").write_text(yaml.safe_dump(redirected))
    names = ",".join(f"{task}_here" for task in METRICS)
    arguments = [sys.executable, "-m", "lm_eval", "--model", "hf", "--model_args", f"pretrained={model}"]
    arguments += ["--tasks", names, "--include_path", tasks, "--device", "cpu", "--batch_size", "1"]
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment = inherited | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*map(str, arguments), "--output_path", str(directory / "out")],
        capture_output=True,
        text=True,
        env=environment,
        cwd=directory,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (results,) = (directory / "out").rglob("results_*.json")
    found: dict[str, dict[str, float]] = json.loads(results.read_text())["results"]
    return found
