"""A sweep from its file to its board, in this process."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from micro_sweep import Ended, board_rows, made, sweep, weighin, write
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness import executor
from methods import student
from results.artifacts import Artifacts
from results.store import Store


@dataclass(frozen=True)
class Finished:
    """A finished run: its sweep file and its store."""

    sweep: Path
    store: Path
    ended: Ended

    def run(self, *options: str) -> Ended:
        return weighin("run", self.sweep, "--store", self.store, "--on", "inline", *options)

    def command(self, *arguments: object) -> Ended:
        return weighin(*arguments, "--store", self.store)

    def rows(self) -> Mapping[str, Mapping[str, Any]]:
        return board_rows(self.command("board", "--format", "json").data)

    def row(self, method: str) -> str:
        (found,) = (id for id, row in self.rows().items() if row["method"] == method)
        return found

    def student(self, stage: str) -> Path:
        """The model that a stage of the low-rank row made."""
        key = next(iter(self.rows()[self.row("svd")]["run"]["seeds"].values()))["stages"][stage]
        return Artifacts(Store(str(self.store))).directory(stage, key) / "model"


@pytest.fixture(scope="module")
def first(plugin: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run that nobody changes."""
    root = tmp_path_factory.mktemp("finished")
    path = write(root / "micro.yaml", sweep(corpus))
    return Finished(path, root / "store", weighin("run", path, "--store", root / "store", "--on", "inline"))


@pytest.fixture
def finished(first: Finished, tmp_path: Path) -> Finished:
    """A copy of it."""
    shutil.copytree(first.store, tmp_path / "store")
    shutil.copy(first.sweep, tmp_path / "micro.yaml")
    return Finished(tmp_path / "micro.yaml", tmp_path / "store", first.ended)


def test_a_sweep_runs_to_its_board(first: Finished) -> None:
    assert first.ended.code == 0, first.ended
    assert "Traceback" not in first.ended.out + first.ended.err
    assert f"page: {first.store / 'board.html'}" in first.ended.out
    assert {row["method"]: row["status"] for row in first.rows().values()} == {
        "identity": "complete",
        "svd": "complete",
    }
    assert Counter(stage for stage, _, _ in made(first.store)) == {
        "corpus": 1, "tokenizer": 1, "tokens": 1, "teacher": 1, "compress": 2, "profile": 2, "distill": 1, "evaluate": 3
    }  # fmt: skip


def test_the_numbers_are_those_of_the_models(first: Finished) -> None:
    row = first.rows()[first.row("svd")]
    (score,) = row["quality"].values()
    assert 1 < score["by_seed"]["0"] < 1000
    assert score["before"] is not None
    model = student.load(first.student("distill"))
    assert row["size"]["params"] == student.count_params(model)
    assert row["size"]["params_fraction"] == pytest.approx(0.8, rel=0.02)
    from third_party import WordPerplexity

    tokenizer = AutoTokenizer.from_pretrained(first.student("distill"))
    again = WordPerplexity().measure(model.eval(), tokenizer, None).metrics["ppl"]
    assert score["by_seed"]["0"] == pytest.approx(again, rel=1e-6)


def test_a_second_run_does_nothing(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even an executor is started."""
    monkeypatch.setitem(executor.BUILT_IN, "inline", "no.such:Executor")
    before = made(finished.store)
    records = sorted(path.name for path in (finished.store / "records").iterdir())
    assert finished.run().code == 0
    assert made(finished.store) == before
    assert sorted(path.name for path in (finished.store / "records").iterdir()) == records


def test_a_method_more_runs_only_its_own_stages(finished: Finished, corpus: Path) -> None:
    before = made(finished.store)
    write(finished.sweep, sweep(corpus, methods=["identity", "svd", {"svd": {"matrices": "ffn"}}]))
    planned = finished.command("plan", finished.sweep, "--json").data
    assert Counter(stage["state"] for stage in planned["stages"]) == {"cached": 12, "to run": 5}
    assert finished.run().code == 0
    new = made(finished.store) - before
    assert before < made(finished.store)
    assert Counter(stage for stage, _, _ in new) == {"compress": 1, "profile": 1, "distill": 1, "evaluate": 2}
    assert len(finished.rows()) == 3


def test_another_seed_trains_the_student_alone(finished: Finished) -> None:
    before = made(finished.store)
    assert finished.run("--set", "seeds=2").code == 0
    assert Counter(stage for stage, _, _ in made(finished.store) - before) == {"distill": 1, "evaluate": 1}
    row = finished.rows()[finished.row("svd")]
    (score,) = row["quality"].values()
    assert set(score["by_seed"]) == {"0", "1"}
    assert score["by_seed"]["0"] != score["by_seed"]["1"]


def test_plan_says_what_is_cached_and_what_changed(finished: Finished) -> None:
    def states(*options: str) -> tuple[Counter[str], set[str]]:
        stages = finished.command("plan", finished.sweep, "--json", *options).data["stages"]
        return Counter(stage["state"] for stage in stages), {stage["why"] for stage in stages if "why" in stage}

    assert states() == (Counter(cached=12), set())
    assert states("--set", "resources={default: {workers: 2}}") == (Counter(cached=12), set())
    counted, why = states("--set", "budgets=[{params: 0.9}]")
    assert counted == {"cached": 7, "to run": 5}
    assert "changed: params.budget" in why
    assert "2 cells (0 skipped), 12 stages cached, 0 to run" in finished.command("plan", finished.sweep).out


def test_computing_it_again_gives_the_same_bits(finished: Finished) -> None:
    before = finished.rows()
    for stage in ("distill", "evaluate", "compress"):
        shutil.rmtree(finished.store / "artifacts" / stage)
    shutil.rmtree(finished.store / "records")
    assert finished.run().code == 0
    after = finished.rows()
    assert {id: (row["quality"], row["size"]) for id, row in after.items()} == {
        id: (row["quality"], row["size"]) for id, row in before.items()
    }


@pytest.mark.parametrize("form", ["table", "md", "csv", "json", "html"])
def test_the_board_in_every_format(first: Finished, form: str, tmp_path: Path) -> None:
    shown = first.command("board", "--format", form)
    assert shown.code == 0
    for word in ("svd", "identity", first.row("svd")):
        assert word in shown.out.replace("\\", "")
    told = first.command("board", "--format", form, "--output", tmp_path / "board")
    assert (told.code, (tmp_path / "board").read_text()) == (0, shown.out)
    match form:
        case "json":
            assert json.loads(shown.out)["tabs"]
        case "csv":
            assert {line["method"] for line in csv.DictReader(StringIO(shown.out))} >= {"svd", "identity"}
        case "html":
            assert shown.out.lower().startswith("<!doctype html>")


def test_a_board_of_one_sweep(first: Finished) -> None:
    assert "svd" in first.command("board", "--sweep", "micro").out
    assert "svd" not in first.command("board", "--sweep", "other").out


def test_show_explains_a_row(first: Finished) -> None:
    row = first.row("svd")
    for target in (row, f"{row}#0"):
        shown = first.command("show", target)
        assert shown.code == 0
        assert "words.token_ppl.v1" in shown.out
        assert first.command("show", target, "--json").data["id"] == row
    wrong = first.command("show", "ffffffff")
    assert (wrong.code, len(wrong.err.splitlines())) == (2, 1)


def test_an_exported_student_is_a_plain_model(first: Finished, tmp_path: Path) -> None:
    row = first.row("svd")
    assert first.command("export", row, tmp_path / "dense").code == 0
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "dense").eval()
    assert type(plain).__name__ == "GPT2LMHeadModel"
    ids = AutoTokenizer.from_pretrained(tmp_path / "dense")("the cat sat on the red mat", return_tensors="pt").input_ids
    with torch.no_grad():
        factorised = student.load(first.student("distill")).eval()(input_ids=ids).logits
        torch.testing.assert_close(plain(input_ids=ids).logits, factorised, rtol=1e-4, atol=1e-5)
        before = student.load(first.student("compress")).eval()(input_ids=ids).logits
    assert not torch.allclose(before, factorised, rtol=1e-2)
    again = first.command("export", row, tmp_path / "dense")
    assert (again.code, "exists and is not an empty directory" in again.err) == (2, True)
    assert first.command("export", "ffffffff", tmp_path / "other").code == 2


def test_an_object_store_holds_the_same(
    first: Finished, plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fsspec's memory stands for a bucket: no rename, no link, artifacts uploaded and downloaded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    url = f"memory://weighin-{tmp_path.name}"
    ended = weighin("run", first.sweep, "--store", url, "--on", "inline")
    assert ended.code == 0, ended
    rows = board_rows(weighin("board", "--store", url, "--format", "json").data)
    assert {id: (row["quality"], row["size"]) for id, row in rows.items()} == {
        id: (row["quality"], row["size"]) for id, row in first.rows().items()
    }
    assert weighin("export", first.row("svd"), tmp_path / "dense", "--store", url).code == 0
    before = made(url)
    assert weighin("run", first.sweep, "--store", url, "--on", "inline").code == 0
    assert made(url) == before
    Store(url).remove("")
