"""Fine-tuning stages of one process share what they read, and nothing else."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from harness.executor import Job
from harness.stage import Context, Execution, NoCheckpoints, silent
from harness.stages import finetune, loaded
from harness.worker import execute, prepare_process
from methods import student
from tasks import embedded, embedded_tasks
from tasks.embedded_tasks import PydocFollows, PydocReversed
from tasks.tokenizer import train

pytestmark = pytest.mark.sweep

RECIPE = {"learning_rate": 1e-2, "epochs": 1, "batch_examples": 8, "max_length": 24}
ILKD = {"losses": {"ce": 1.0, "kd": 1.0, "temperature": 2.0, "taps": 0.0}}
TASKS = ("PydocReversed", "PydocFollows")


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(embedded_tasks, "VALIDATION_SIZE", 24)
    loaded.forget()
    yield
    loaded.forget()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two language models with one tokenizer, and a third with another."""
    root = tmp_path_factory.mktemp("models")
    texts = embedded.documents("validation")[:5]
    for number, (name, vocab) in enumerate({"one": 400, "two": 400, "other": 300}.items()):
        torch.manual_seed(number)
        config = GPT2Config(
            n_layer=1, n_embd=16, n_head=2, n_positions=32, vocab_size=vocab, bos_token_id=0, eos_token_id=0
        )
        student.save(GPT2LMHeadModel(config), root / name / "model", train(texts, vocab))
    return root


def run(model: Path, output: Path, task: str, seed: int, **changes: Any) -> Mapping[str, Any]:
    """One stage as a worker runs it: its curve, its predictions and its result."""
    teacher = changes.pop("teacher", None)
    output.mkdir(parents=True)
    prepare_process(1, seed)
    params = {
        "target": f"tasks.embedded_tasks:{task}",
        "seed": seed,
        "train_rows": 24,
        "keep_model": teacher is None,
        "recipe": RECIPE | changes,
    }
    steps: list[Mapping[str, float]] = []

    def telemetry(point: Mapping[str, float], *, tokens: int, seconds: float, flops_per_token: float) -> None:
        steps.append({**point, "step_tokens": tokens, "flops": tokens * flops_per_token})
        assert seconds > 0

    context = Context(
        params=params,
        inputs={"model": model} | ({"teacher": teacher} if teacher else {}),
        output=output,
        execution=Execution(),
        checkpoints=NoCheckpoints(),
        progress=silent,
        telemetry=telemetry,
    )
    result = {k: v for k, v in finetune.run(context).items() if not k.endswith("_s")}
    items = pq.read_table(output / "items.parquet").to_pydict()
    curve = json.loads((output / "curve.json").read_text())
    assert [{k: step[k] for k in curve[0]} for step in steps] == curve
    assert sum(step["step_tokens"] for step in steps) == result["tokens"] == curve[-1]["tokens"]
    assert sum(step["flops"] for step in steps) == pytest.approx(result["flops"])
    return {"result": result, "items": items, "curve": curve}


def stages(models: Path, output: Path, *, fresh: bool) -> dict[str, Any]:
    """Teachers and students of two seeds and two tasks, one in bf16 before another; `fresh` loads for each stage."""
    found = {}
    bf16 = ILKD | {"precision": "bf16"}
    for seed, task in ((0, TASKS[0]), (1, TASKS[0]), (0, TASKS[1])):
        for name, options in {"teacher": {}, **({"bf16": bf16} if seed else {}), "student": ILKD}.items():
            if fresh:
                loaded.forget()
            teacher = {} if name == "teacher" else {"teacher": output / f"teacher-{task}-{seed}"}
            source = models / ("one" if name == "teacher" else "two")
            found[f"{name}-{task}-{seed}"] = run(
                source, output / f"{name}-{task}-{seed}", task, seed, **options, **teacher
            )
    return found


def test_sharing_reads_once_and_changes_no_bit(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = stages(models, tmp_path / "fresh", fresh=True)
    loaded.forget()
    reads: list[str] = []
    load, encode = student.load, loaded.encode

    def load_counted(directory: Path, **options: Any) -> Any:
        reads.append(directory.parent.name)
        return load(directory, **options)

    def encode_counted(*arguments: Any) -> Any:
        reads.append("examples")
        return encode(*arguments)

    monkeypatch.setattr(student, "load", load_counted)
    monkeypatch.setattr(loaded, "encode", encode_counted)
    assert stages(models, tmp_path / "shared", fresh=False) == fresh
    teachers = [name for name in fresh if name.startswith("teacher")]
    assert sorted(reads) == sorted(["one", "two", *teachers, *["examples"] * 2 * len(TASKS)])
    assert len({json.dumps(stage["curve"]) for stage in fresh.values()}) == len(fresh)


def test_a_copy_is_trained_and_a_head_is_the_seed_s(models: Path) -> None:
    first = loaded.base_model(models / "one" / "model", 2, seed=0)
    start = copy.deepcopy(first.state_dict())
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.fill_(float("nan"))
    torch.rand(3)
    again = loaded.base_model(models / "one" / "model", 2, seed=0).state_dict()
    assert start.keys() == again.keys()
    assert all(torch.equal(start[name], again[name]) for name in start)
    torch.manual_seed(0)
    afresh = student.load(models / "one" / "model", head="classification", num_labels=2).state_dict()
    assert all(torch.equal(start[name], afresh[name]) for name in start)
    other = loaded.base_model(models / "one" / "model", 2, seed=1).state_dict()
    assert [name for name in start if not torch.equal(start[name], other[name])] == ["score.weight"]


def test_artifacts_heads_and_data_are_never_mixed(models: Path) -> None:
    one, two = (loaded.base_model(models / name / "model", 2, seed=0) for name in ("one", "two"))
    assert not torch.equal(one.transformer.wte.weight, two.transformer.wte.weight)
    assert loaded.base_model(models / "one" / "model", 3, seed=0).score.weight.shape == (3, 16)
    tokenizers = {name: AutoTokenizer.from_pretrained(models / name / "model") for name in ("one", "other")}

    def examples(name: str, task: Any = PydocReversed, split: str = "train", limit: int = 8, length: int = 16) -> Any:
        directory = models / name / "model"
        return loaded.encoded_examples(
            task(), split, tokenizers[name], directory, mirror=None, limit=limit, max_length=length
        )

    assert examples("one") is examples("one")
    different = [
        examples("one"),
        examples("other"),
        examples("one", PydocFollows),
        examples("one", split="validation"),
        examples("one", limit=7),
        examples("one", length=3),
    ]
    assert len({str(each.input_ids) for each in different}) == len(different)
    assert loaded.tokenizer_digest(models / "one" / "model") == loaded.tokenizer_digest(models / "two" / "model")


def test_a_stage_that_measures_finds_nothing_kept(models: Path, tmp_path: Path) -> None:
    for alone, left in ((False, 1), (True, 0)):
        loaded.forget()
        loaded.base_model(models / "one" / "model", 2, seed=0)
        job = Job(
            stage="profile",
            key=f"{alone}",
            attempt="1-a",
            target="json:run",
            params={},
            parents={},
            execution=Execution(alone=alone),
            store=str(tmp_path),
        )
        assert execute(job).status == "failed"
        assert len(loaded.kept_models) == left


def test_what_is_kept_is_bounded() -> None:
    made: list[str] = []
    few = loaded.Kept(limit_bytes=100, limit_count=3)

    def get(name: str, size: int) -> str:
        return few.get(name, lambda: made.append(name) or name, lambda _: size)

    for name in "abcd":
        get(name, 10)
    assert len(few) == 3
    get("b", 10)
    get("e", 10)
    assert get("b", 10) == "b"
    assert made == list("abcde")
    get("large", 90)
    assert few.bytes == 100
    assert get("larger", 101) == "larger"
    assert few.bytes == 100
    assert get("larger", 101) == "larger"
    assert made.count("larger") == 2
