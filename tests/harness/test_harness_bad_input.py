"""Requests that cannot be carried out: exit code 2, one or two lines, nothing written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from micro_sweep import Ended, recipe, sweep, weighin, write


@pytest.fixture
def refused(plugin: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a micro sweep with changes, and returns its complaint after checking that it did nothing else."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)

    def run(*options: object, text: str = "", store: Path | str = tmp_path / "store", **changes: Any) -> str:
        path = write(tmp_path / "bad.yaml", text or sweep(corpus, **changes))
        before = sorted(tmp_path.rglob("*"))
        ended = weighin("run", path, "--store", store, "--on", "inline", *options)
        assert ended.code == 2, ended
        assert ended.out == ""
        assert ended.err.startswith("error: ")
        assert len(ended.err.splitlines()) <= 2
        assert sorted(tmp_path.rglob("*")) == before
        return ended.err.removeprefix("error: ").strip()

    return run


def teacher(**form: Any) -> dict[str, Any]:
    return {"name": "t"} | form


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": ["x"]}, "method: unknown key; did you mean 'methods'?"),
        ({"methods": ["svdd"]}, "method 'svdd' is not known; did you mean 'svd'?"),
        ({"methods": [{"svd": {"matrixes": "all"}}]}, "unknown field 'matrixes'; did you mean 'matrices'?"),
        ({"methods": [{"svd": {"matrices": "al"}}]}, "svd: matrices: Input should be 'all', 'attention' or"),
        ({"methods": ["unimportable"]}, "'unimportable' does not import (third_party_broken): ModuleNotFoundError"),
        ({"tasks": ["words.token_ppl.v2"]}, "called 'words.token_ppl.v2'; did you mean 'words.token_ppl.v1'?"),
        ({"teacher": teacher(directory="nowhere")}, "teacher.directory: nowhere holds no config.json"),
        ({"teacher": teacher(gguf={"file": "nowhere.gguf"})}, "teacher.gguf.file: nowhere.gguf is not there"),
        (
            {"teacher": teacher(gguf={"file": "x.gguf", "package": "no_such_package"})},
            "teacher.gguf.package: no_such_package is not installed",
        ),
        ({"teacher": teacher(model="no/such", revision="0" * 40)}, "model no/such: no mirror given"),
        ({"teacher": teacher(model="no/such")}, "model no/such: no mirror given"),
        (
            {"teacher": teacher(pretrain={"config": {"n_layers": 2}, "recipe": recipe()})},
            "teacher.pretrain.config.n_layers: gpt2 has no such field; did you mean 'n_layer'?",
        ),
        ({"methods": ["identity", "svd", "svd"]}, "there twice"),
        (
            {"teacher": teacher(pretrain={"config": {"vocab_size": 200}, "recipe": recipe()})},
            "teacher.pretrain.config.vocab_size: at least 257",
        ),
        (
            {"teacher": teacher(pretrain={"config": {"vocab_size": 300, "n_embd": 30}, "recipe": recipe()})},
            "a width of 30 cannot be shared by 12 heads",
        ),
        ({"corpus": {"directory": "nowhere"}}, "corpus nowhere: no .jsonl, .parquet, .txt files there"),
        ({"recipes": [recipe(sequence_length=64)]}, "recipes: shared: sequence_length 64 is more than the 32"),
        ({"corpus": {"hub": "Salesforce/wikitext"}}, "corpus: hub Salesforce/wikitext needs config"),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_named_with_its_file(refused: Any, changes: dict[str, Any], message: str) -> None:
    said = refused(**changes)
    assert said.partition(": ")[0].endswith("bad.yaml")
    assert message in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "a sweep is a YAML mapping (key: value); this file is a list"),
        ("# nothing\n", "a sweep is a YAML mapping (key: value); this file is empty"),
        ("name: a\nname: b\n", "line 2, column 1: repeated key 'name'"),
        ("name: [a\n", "line 2, column 1: expected ',' or ']'"),
    ],
)
def test_what_is_no_sweep_is_said(refused: Any, text: str, message: str) -> None:
    said = refused(text=text)
    assert "bad.yaml: " in said
    assert message in said


def test_a_teachers_directory_without_weights(refused: Any, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    said = refused(teacher=teacher(directory=str(tmp_path / "model")))
    assert "bad.yaml: teacher.directory: " in said
    assert "holds no safetensors weights" in said
    (tmp_path / "model" / "config.json").write_text("{")
    assert "bad.yaml: teacher t: does not load: " in refused(teacher=teacher(directory=str(tmp_path / "model")))


def test_a_mirror_that_lacks_the_data(refused: Any, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    assert "--mirror " in refused("--mirror", mirror)
    mirror.mkdir()
    said = refused("--mirror", mirror, corpus={"hub": "Salesforce/wikitext", "config": "wikitext-2-raw-v1"})
    assert (
        f"bad.yaml: data set Salesforce/wikitext, config wikitext-2-raw-v1, split train: not in the mirror {mirror}"
        in said
    )
    said = refused("--mirror", mirror, tasks=["glue.cola.v1"], finetune={"learning_rate": 1e-3, "max_length": 32})
    assert "bad.yaml: data set nyu-mll/glue, config cola, split train: not in the mirror" in said
    said = refused("--mirror", mirror, teacher=teacher(model="no/such", revision="0" * 40))
    assert f"bad.yaml: teacher t: does not load: model no/such: not in the mirror {mirror}" in said


def test_a_corpus_without_text(refused: Any, tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    assert f"bad.yaml: corpus {texts}: no .jsonl, .parquet, .txt files there" in refused(
        corpus={"directory": str(texts)}
    )
    for split in ("train", "validation"):
        (texts / split).mkdir()
        (texts / split / "blank.txt").write_text(" \n")
    assert f"bad.yaml: corpus {texts}: no text in split train" in refused(corpus={"directory": str(texts)})
    (texts / "train" / "text.txt").write_text("text")
    assert f"bad.yaml: corpus {texts}: no text in split validation" in refused(corpus={"directory": str(texts)})


def test_a_store_that_cannot_be_used(refused: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert refused(store=tmp_path / "file").endswith("/file: not a directory")
    assert "/file/below: " in refused(store=tmp_path / "file" / "below")
    assert "store nosuch://x: cannot be opened" in refused(store="nosuch://x")
    if Path("/proc/self").exists():
        assert "store /proc/weighin: not writable" in refused(store="/proc/weighin")


@pytest.mark.parametrize("command", ["run", "plan", "board", "show", "export"])
def test_a_store_of_a_newer_weighin(command: str, plugin: Path, corpus: Path, tmp_path: Path) -> None:
    store = tmp_path / "newer"
    store.mkdir()
    (store / "store.json").write_text('{"schema": 99}')
    sweep_file = write(tmp_path / "micro.yaml", sweep(corpus))
    arguments: dict[str, list[object]] = {
        "run": [sweep_file, "--on", "inline"],
        "plan": [sweep_file],
        "show": ["abc"],
        "export": ["abc", tmp_path / "out"],
    }
    ended = weighin(command, *arguments.get(command, []), "--store", store)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == f"error: store {store}: schema 99 was written by a newer weighin (this one: 1)\n"
    assert [path.name for path in store.iterdir()] == ["store.json"]


def refuses(ended: Ended, message: str) -> bool:
    return ended.code == 2 and message in ended.err and len(ended.err.splitlines()) <= 2


def test_wrong_words_on_the_command_line(corpus: Path, tmp_path: Path, plugin: Path) -> None:
    path, store = write(tmp_path / "micro.yaml", sweep(corpus)), tmp_path / "store"
    given = ["--store", store]
    assert refuses(
        weighin("run", path, *given, "--on", "inlin"), "--on inlin: no such executor; did you mean 'inline'?"
    )
    assert refuses(weighin("run", path, *given, "--on", "inline", "--address", "x"), "--address goes with --on ray")
    assert refuses(weighin("run", tmp_path / "absent.yaml", *given), "absent.yaml: cannot be read: No such file")
    assert refuses(weighin("run", path, *given, "--set", "seeds"), "--set seeds: write key=value")
    assert refuses(weighin("rerun", path, *given), "say what to run again: --failed")
    assert refuses(weighin("board", *given, "--format", "jsn"), "--format jsn: unknown; did you mean 'json'?")
    assert refuses(weighin("show", "abc", *given), "no row 'abc'")
    assert refuses(weighin("export", "abc", tmp_path / "out", *given), "abc: no such row")
    assert refuses(weighin("check", "svdd"), "did you mean 'svd'?")
    assert not store.exists()
    assert not (tmp_path / "out").exists()


def test_a_board_of_nothing_says_how_to_begin(tmp_path: Path) -> None:
    ended = weighin("board", "--store", tmp_path / "store")
    assert ended.code == 0
    assert "weighin run" in ended.out
    assert not (tmp_path / "store").exists()
