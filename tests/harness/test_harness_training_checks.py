"""What would stop a training stage is said by `plan` and `run` before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from micro_sweep import recipe, sweep, weighin, write

TAPS = {"losses": {"ce": 1.0, "taps": 0.1}}
FINETUNE = {"learning_rate": 1e-3, "batch_examples": 8, "max_length": 16, "losses": {"ce": 1.0, "taps": 0.1}}


@pytest.fixture
def said(plugin: Path, corpus: Path, tmp_path: Path) -> Any:
    """The complaint of a command about a micro sweep with changes; it wrote nothing."""

    def run(command: str = "plan", **changes: Any) -> str:
        store = tmp_path / "store"
        path = write(tmp_path / "micro.yaml", sweep(corpus, **changes))
        ended = weighin(command, path, "--store", store, *(["--on", "inline"] if command == "run" else []))
        assert ended.code == 2, ended
        assert ended.out == ""
        assert len(ended.err.splitlines()) == 1
        assert not store.exists()
        return ended.err.removeprefix(f"error: {path}: ").strip()

    return run


@pytest.fixture
def planned(plugin: Path, corpus: Path, tmp_path: Path) -> Any:
    """The stages of a micro sweep with changes, as `plan --json` gives them, by label."""

    def run(**changes: Any) -> dict[str, Any]:
        path = write(tmp_path / "micro.yaml", sweep(corpus, **changes))
        ended = weighin("plan", path, "--store", tmp_path / "store", "--json")
        assert ended.code == 0, ended
        return {stage["label"]: stage for stage in ended.data["stages"]}

    return run


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"student": "transformer.h.9"}, "tap: the student has no module 'transformer.h.9'; transformer.h has: 0, 1"),
        ({"teacher": "transformer.hh"}, "tap: the teacher has no module 'transformer.hh'"),
        (
            {"teacher": "transformer.h.0.mlp.c_fc"},
            "tap transformer.h.0.mlp.c_fc -> transformer.h.0 (output): widths differ: teacher 64, student 16",
        ),
        ({"kind": "attention", "loss": "kl"}, "'transformer.h.0' is not an attention module"),
        (
            {"kind": "attention", "teacher": "transformer.h.0.attn", "student": "transformer.h.0.attn"},
            "attention maps are compared by kl, not mse",
        ),
    ],
    ids=["no such student module", "no such teacher module", "widths", "no attention", "attention's loss"],
)
@pytest.mark.parametrize("command", ["plan", "run"])
def test_taps_that_cannot_work(said: Any, fields: dict[str, str], message: str, command: str) -> None:
    complaint = said(command, methods=["identity", {"tapped": fields}], recipes=[recipe(**TAPS)])
    assert complaint.startswith("methods: tapped ")
    assert message in complaint


def test_a_projection_makes_widths_comparable(planned: Any) -> None:
    wide = {"teacher": "transformer.h.0.mlp.c_fc", "project": True}
    assert planned(methods=["identity", {"tapped": wide}], recipes=[recipe(**TAPS)])


def test_taps_matter_only_where_a_loss_weighs_them(planned: Any) -> None:
    assert planned(methods=["identity", {"tapped": {"student": "nowhere"}}])


def test_taps_of_fine_tuning(said: Any, planned: Any) -> None:
    tasks = {"tasks": ["pydoc.reversed.v1"], "finetune": FINETUNE, "recipes": ["none"]}
    assert "tap: the student has no module 'nowhere'" in said(methods=[{"tapped": {"student": "nowhere"}}], **tasks)
    head = {"teacher": "lm_head", "student": "lm_head"}
    assert "the fine-tuned teacher has no module 'lm_head'" in said(methods=[{"tapped": head}], **tasks)
    assert planned(methods=["tapped"], **tasks)


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"distill": {"workers": 3}}, "resources.distill: 3 workers cannot share a global batch of 4 windows; "
                                      "nearest: 2 or 4"),
        ({"default": {"workers": 8}}, "resources.default: 8 workers cannot share a global batch of 4 windows; "
                                      "nearest: 4"),
        ({"distill": {"workers": 2, "micro_batch": 3}}, "resources.distill: micro_batch 3 does not divide a worker's "
                                                        "2 windows of the global batch; nearest: 2"),
        ({"teacher": {"micro_batch": 3}}, "resources.teacher: micro_batch 3 does not divide a worker's 4 windows of "
                                          "the global batch; nearest: 2 or 4"),
        ({"distill": {"offload": True}}, "resources.distill: offload moves what ZeRO partitions, and zero_stage is 0"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["plan", "run"])
def test_batches_that_cannot_be_shared(said: Any, resources: dict[str, Any], message: str, command: str) -> None:
    assert message in said(command, resources=resources)


def test_a_plan_says_what_a_worker_needs(planned: Any) -> None:
    stages = planned(methods=["identity", "svd", "staged"], seeds=2)
    teacher, student = stages["teacher micro-gpt2"], stages["distill svd params=0.8 #0"]
    assert teacher["memory_parts"]["weights"] == pytest.approx(4 * 12_000, rel=0.1)
    assert student["memory_parts"]["weights"] < teacher["memory_parts"]["weights"]
    assert student["memory_parts"]["teacher"] == teacher["memory_parts"]["weights"]
    assert student["memory_bytes"] == sum(student["memory_parts"].values()) < 2**24
    assert student["memory_bytes"] == stages["distill svd params=0.8 #1"]["memory_bytes"]
    assert "memory_bytes" in stages["distill staged params=0.8 phase 2 #1"]
    assert not any("warning" in stage for stage in stages.values())


def test_a_plan_warns_where_memory_is_short(plugin: Path, corpus: Path, tmp_path: Path) -> None:
    config = {"n_layer": 4, "n_embd": 512, "n_head": 8, "n_positions": 1024, "vocab_size": 8192}
    large = {"name": "large", "pretrain": {"config": config, "recipe": recipe(sequence_length=64)}}
    long = recipe(sequence_length=1024, batch_tokens=65536)
    resources = {"distill": {"memory": "2GiB", "micro_batch": 16}}
    path = write(tmp_path / "large.yaml", sweep(corpus, teacher=large, recipes=[long], resources=resources, seeds=2))
    ended = weighin("plan", path, "--store", tmp_path / "store")
    assert ended.code == 0
    said = " ".join(ended.out.split())
    assert said.count("memory distill") == 1
    assert "memory distill svd params=0.8 #0 and 1 more: needs about " in said
    assert " GiB are there; try micro_batch: " in said
    chosen = weighin("plan", path, "--store", tmp_path / "store", "--set", "resources.distill={memory: 2GiB}", "--json")
    (distill, _) = (stage for stage in chosen.data["stages"] if stage["stage"] == "distill")
    assert distill["memory_bytes"] <= 2 * 2**30
    assert "warning" not in distill
