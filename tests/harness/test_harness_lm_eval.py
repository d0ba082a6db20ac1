"""lm-eval's tasks in a sweep: named, planned, run, shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from micro_sweep import WORDS, board_rows, recipe, sweep, weighin, write

from harness.stage import Context, NoCheckpoints, StageFailure, silent
from harness.stages import evaluate
from tasks.lm_eval_index import installed

TEXTS = [" ".join(WORDS[i % 7 : i % 7 + 6]) for i in range(12)]


@pytest.fixture(scope="module")
def small_mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirror with twelve documents of two data sets."""
    mirror = tmp_path_factory.mktemp("mirror")
    tables = {
        "nyu-mll/glue/sst2/validation": {"sentence": TEXTS, "label": [i % 2 for i in range(12)]},
        "EleutherAI/lambada_openai/default/test": {"text": TEXTS},
    }
    for name, columns in tables.items():
        file = mirror / "datasets" / f"{name}-00000-of-00001.parquet"
        file.parent.mkdir(parents=True)
        pq.write_table(pa.table(columns), file)
    return mirror


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def asked(corpus: Path, *tasks: Any) -> dict[str, Any]:
    config = {"n_layer": 2, "n_embd": 16, "n_head": 2, "n_positions": 160, "vocab_size": 300}
    teacher = {"name": "micro", "pretrain": {"config": config, "recipe": recipe()}}
    return sweep(corpus, teacher=teacher, recipes=["none"], tasks=list(tasks))


@pytest.mark.sweep
def test_a_sweep_measures_and_compares_by_them(corpus: Path, small_mirror: Path, tmp_path: Path):
    path = write(tmp_path / "sweep.yaml", asked(corpus, "lm_eval:sst2", "lm_eval:lambada_openai"))
    options = ("--store", tmp_path / "store", "--mirror", small_mirror)
    ended = weighin("run", path, *options, "--on", "inline")
    assert ended.code == 0, ended.err
    board = weighin("board", "--store", tmp_path / "store", "--format", "json").data
    columns = {each["protocol"]: each for tab in board["tabs"] for each in tab["columns"]}
    accuracy = columns[f"lm_eval.sst2.0shot.v1+{installed()}"]
    perplexity = columns[f"lm_eval.lambada_openai.0shot.v1+{installed()}"]
    assert (accuracy["metric"], accuracy["unit"], accuracy["higher_is_better"]) == ("acc", "fraction", True)
    assert (perplexity["metric"], perplexity["higher_is_better"]) == ("perplexity", False)
    for row in board_rows(board).values():
        for column in (accuracy, perplexity):
            assert row["quality"][column["key"]]["basis"] == "items only", row
    planned = weighin("plan", path, *options, "--json").data
    assert {stage["state"] for stage in planned["stages"]} == {"cached"}


def test_two_numbers_of_examples_are_two_protocols(corpus: Path, small_mirror: Path, tmp_path: Path):
    path = write(
        tmp_path / "sweep.yaml",
        asked(corpus, {"task": "lm_eval:lambada_openai", "num_fewshot": 1}, "lm_eval:lambada_openai"),
    )
    planned = weighin("plan", path, "--store", tmp_path / "store", "--mirror", small_mirror, "--json").data
    labels = [stage["label"] for stage in planned["stages"] if stage["stage"] == "evaluate"]
    assert {label.partition(" ")[0] for label in labels} == {
        f"lm_eval.lambada_openai.{shots}shot.v1+{installed()}" for shots in (0, 1)
    }


@pytest.mark.parametrize(
    ("tasks", "why"),
    [
        (["lm_eval:hellaswga"], "no task, group or tag called 'hellaswga'; did you mean 'hellaswag'?"),
        (["lm_eval:mrpc"], "data set nyu-mll/glue, config mrpc, split validation of lm-eval's task mrpc: not in"),
        (["lm_eval:glue", "lm_eval:sst2"], "tasks: lm_eval.sst2.0shot.v1+"),
        ([{"task": "glue.cola.v1", "num_fewshot": 5}], "glue.cola.v1: `num_fewshot` is for lm-eval's tasks"),
        ([{"task": "lm_eval:sst2", "limit": 10}], "tasks.0.limit: unknown key"),
        ([{"task": "lm_eval:sst2", "num_fewshot": -1}], "tasks.0.num_fewshot: Input should be greater than or equal"),
        ([{"task": "lm_eval:sst2", "train_rows": 10}], "does not train: `train_rows` is for fine-tuned tasks"),
        (["lm_eval:humaneval"], "executes what the model writes"),
    ],
)
def test_what_cannot_be_measured_is_said_before_anything_runs(
    tasks: list[Any], why: str, corpus: Path, small_mirror: Path, tmp_path: Path
):
    path = write(tmp_path / "sweep.yaml", asked(corpus, *tasks))
    for verb in (["plan"], ["run", "--on", "inline"]):
        ended = weighin(*verb, path, "--store", tmp_path / "store", "--mirror", small_mirror)
        assert (ended.code, ended.out) == (2, "")
        assert why in ended.err
        assert len(ended.err.splitlines()) == 1
    assert not (tmp_path / "store").exists()


def test_a_worker_with_another_lm_eval_measures_nothing(tmp_path: Path):
    params = {
        "task": "lm_eval.sst2.0shot.v1+0.3",
        "target": "tasks.lm_eval_task:LmEvalTask",
        "fields": {"task": "sst2", "num_fewshot": 0},
    }
    context = Context(params=params, inputs={}, output=tmp_path, checkpoints=NoCheckpoints(), progress=silent)
    with pytest.raises(StageFailure, match=r"v1\+0\.3 was asked for, and what is installed here is .*v1\+"):
        evaluate.run(context)


def test_they_are_listed_on_demand():
    assert "lm_eval:NAME: any task of lm-eval" in weighin("tasks").out
    assert weighin("tasks", "--lm-eval", "arc_e*", "--json").data["lm_eval:arc_easy"] == "task, arc/arc_easy.yaml"
    assert "lm_eval:hellaswag " in weighin("tasks", "--lm-eval", "hellaswag").out
    assert "did you mean 'hellaswag'" in weighin("tasks", "--lm-eval", "hellaswga").err
    assert weighin("tasks", "arc").code == 2


def test_one_says_what_it_measures():
    facts = weighin("tasks", "lm_eval:sst2", "--json").data
    assert facts["name"] == f"lm_eval.sst2.0shot.v1+{installed()}"
    assert (facts["data"], facts["tasks"], facts["regime"]) == ("nyu-mll/glue", "sst2", "zero-shot")
    assert facts["metrics"] == "acc: fraction, higher is better"
