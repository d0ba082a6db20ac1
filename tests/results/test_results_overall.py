"""The overall score against its formula, leave-one-out refits, and every way to have none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from results.board import board
from results.model import Row, Tab
from results.overall import LABELS, OVERALLS, chance
from results.plots import is_log
from results.record import Measured

V = 2048
BITS = ("pydoc.reversed.v1", "pydoc.follows.v1")
PPL = "pydoc.token_ppl.v1"
NAME = "overall.pydoc.v1"
Items = Mapping[str, Any]


def draw(seed: int, quality: float, windows: int = 40, examples: int = 60) -> dict[str, Items]:
    """Items of the perplexity and of both tasks; the lower `quality`, the nearer to the teacher."""
    rng, base = np.random.default_rng([seed, round(1000 * quality)]), np.random.default_rng(99)
    tokens = base.integers(50, 128, windows)
    nll = tokens * (3.0 + 0.3 * base.standard_normal(windows) + quality + 0.05 * rng.standard_normal(windows))
    found: dict[str, Items] = {PPL: {"item": [f"{i}" for i in range(windows)], "nll": nll, "tokens": tokens}}
    for task in BITS:
        hard = base.random(examples)
        correct = hard + 0.1 * rng.random(examples) < 0.95 - quality
        label = np.arange(examples) % 2
        guess = np.where(correct, label, 1 - label)
        items = [f"{i}" for i in range(examples)]
        found[task] = {"item": items, "prediction": guess, "label": label, "correct": correct}
    return found


def values(items: Mapping[str, Items]) -> dict[str, float]:
    """The metrics as a protocol computes them."""
    ppl = {PPL: float(np.exp(items[PPL]["nll"].sum() / items[PPL]["tokens"].sum()))}
    return ppl | {task: float(np.mean(items[task]["correct"])) for task in BITS if task in items}


def by_hand(own: Mapping[str, float], its: Mapping[str, float]) -> tuple[float, float, float]:
    """Score, tasks, perplexity."""
    mine, theirs = (np.mean([found[task] for task in BITS]) for found in (own, its))
    tasks = (mine - 0.5) / (theirs - 0.5)
    likelihood = (log(V) - log(own[PPL])) / (log(V) - log(its[PPL]))
    return float((tasks + likelihood) / 2), float(tasks), float(likelihood)


class Lab:
    """Adds rows that were measured on given items."""

    def __init__(self, reader: Any, sweep: Any) -> None:
        self.reader, self.sweep = reader, sweep

    def add(self, row: str, items: Mapping[str, Items], seed: int = 0, data: str = "sha256:d", **more: Any) -> None:
        found = []
        for task, columns in items.items():
            path, digest = self.reader.put_items(f"{row}-{seed}-{task}", columns)
            found.append(
                Measured(
                    protocol=task,
                    metric="ppl" if task == PPL else "accuracy",
                    value=values(items)[task],
                    unit="",
                    higher_is_better=task != PPL,
                    main=True,
                    data=data,
                    items_path=path,
                    items_sha256=digest,
                    stage_key="e" * 64,
                )
            )
        more.setdefault("method", "low_rank")
        provenance = {"created_at": "2026-01-01T00:00:00Z", "vocabulary": V}
        self.sweep.add(row, seed=seed, measured=found, provenance=more.pop("provenance", provenance), **more)

    def teacher(self, items: Mapping[str, Items], seed: int = 0, row: str = "00000000", **more: Any) -> None:
        self.add(row, items, seed, method="identity", budget=None, recipe="none", **more)


@pytest.fixture
def lab(reader: Any, sweep: Any) -> Lab:
    return Lab(reader, sweep)


def scores(row: Row) -> dict[str, Any]:
    return {key.split("|")[1]: score for key, score in row.scores.items() if key.startswith(NAME)}


def find(tab: Tab, name: str) -> Row:
    return next(row for row in tab.rows if row.id == name)


def test_score_and_parts_are_the_formulas_and_the_teacher_is_one(lab: Lab) -> None:
    lab.teacher(draw(0, 0.0))
    lab.add("aaaaaaaa", draw(0, 0.2))
    (tab,) = board(lab.reader).tabs
    found, its = scores(find(tab, "aaaaaaaa")), scores(find(tab, "00000000"))
    assert list(found) == list(its) == ["score", "tasks", "perplexity"]
    expected = by_hand(values(draw(0, 0.2)), values(draw(0, 0.0)))
    assert [found[name].summary.value for name in found] == pytest.approx(expected, rel=1e-12)
    assert 0 < expected[0] < 1
    assert [(s.summary.value, s.summary.low, s.summary.high) for s in its.values()] == [(1, 1, 1)] * 3
    assert all(column.higher_is_better for column in tab.columns if column.protocol == NAME)
    (note,) = [note for note in tab.notes if note.startswith(NAME)]
    assert "teacher 1, chance 0" in note


def test_the_part_called_perplexity_is_on_a_linear_scale(lab: Lab) -> None:
    lab.teacher(draw(0, 0.0))
    lab.add("aaaaaaaa", draw(0, 0.2))
    (tab,) = board(lab.reader).tabs
    scale = {(column.protocol, column.metric): is_log(column) for column in tab.columns}
    assert scale[PPL, "ppl"]
    assert not scale[NAME, "perplexity"]


def test_a_row_by_itself_has_the_boards_score(lab: Lab) -> None:
    from results.show import show

    lab.teacher(draw(0, 0.0))
    lab.add("aaaaaaaa", draw(0, 0.2))
    on_board = scores(find(board(lab.reader).tabs[0], "aaaaaaaa"))
    assert {name: s.summary for name, s in scores(show(lab.reader, "aaaaaaaa").row).items()} == {
        name: s.summary for name, s in on_board.items()
    }


def without(items: Mapping[str, Items], task: str, place: int) -> dict[str, Items]:
    cut = {name: np.delete(np.array(column), place) for name, column in items[task].items()}
    return {**items, task: cut}


@pytest.mark.parametrize("name", ["score", "tasks", "perplexity"])
def test_the_interval_is_that_of_leaving_each_item_out_of_row_and_teacher(lab: Lab, name: str) -> None:
    """The teacher's uncertainty included: a jackknife refits the whole score without each item, in both models."""
    ours, its = draw(0, 0.2, 150, 200), draw(0, 0.0, 150, 200)
    lab.teacher(its)
    lab.add("aaaaaaaa", ours)
    summary = scores(find(board(lab.reader).tabs[0], "aaaaaaaa"))[name].summary
    place = ["score", "tasks", "perplexity"].index(name)
    variance = 0.0
    for task, columns in ours.items():
        n = len(columns["item"])
        left = np.array(
            [by_hand(values(without(ours, task, i)), values(without(its, task, i)))[place] for i in range(n)]
        )
        variance += (n - 1) / n * float(((left - left.mean()) ** 2).sum())
    assert summary.basis == "items only"
    half = (summary.high - summary.low) / 2
    assert half == pytest.approx(1.965 * variance**0.5, rel=0.03)


def test_the_items_that_row_and_teacher_share_cancel(lab: Lab) -> None:
    """A row as good as the teacher on every item has no uncertainty in its distance, though each alone has some."""
    lab.teacher(draw(0, 0.0))
    lab.add("aaaaaaaa", draw(0, 0.0))
    summary = scores(find(board(lab.reader).tabs[0], "aaaaaaaa"))["score"].summary
    assert (summary.value, summary.low, summary.high) == pytest.approx((1, 1, 1))


def test_seeds_are_paired_and_one_that_the_teacher_lacks_has_no_score(lab: Lab) -> None:
    for seed in (0, 1):
        lab.teacher(draw(seed, 0.0), seed)
    for seed in (0, 1, 2):
        lab.add("aaaaaaaa", draw(seed, 0.2), seed)
    found = scores(find(board(lab.reader).tabs[0], "aaaaaaaa"))["score"]
    expected = {seed: by_hand(values(draw(seed, 0.2)), values(draw(seed, 0.0)))[0] for seed in (0, 1)}
    assert found.by_seed == pytest.approx(expected)
    assert found.summary.value == pytest.approx(np.mean(list(expected.values())))
    assert found.summary.basis == "seeds and items"


def test_a_missing_member_leaves_no_score_and_the_tab_says_whose(lab: Lab) -> None:
    lab.teacher(draw(0, 0.0))
    lab.add("aaaaaaaa", draw(0, 0.2))
    lab.add("bbbbbbbb", {task: items for task, items in draw(0, 0.1).items() if task != BITS[1]}, method="prune")
    (tab,) = board(lab.reader).tabs
    assert scores(find(tab, "bbbbbbbb")) == {}
    assert any(note.startswith(f"{NAME}: none for prune, which lack") for note in tab.notes)


@pytest.mark.parametrize("reason", ["no teacher", "other data", "no vocabulary", "chance", "worse than uniform"])
def test_without_a_unit_there_is_no_score(lab: Lab, reason: str) -> None:
    its = draw(0, 0.0)
    if reason == "chance":
        its = its | {task: {**its[task], "correct": its[task]["label"] == 1} for task in BITS}
    if reason == "worse than uniform":
        its = its | {PPL: {**its[PPL], "nll": 9.0 * its[PPL]["tokens"]}}
    nothing: dict[str, Any] = {"provenance": {}} if reason == "no vocabulary" else {}
    if reason != "no teacher":
        lab.teacher(its, data="sha256:other" if reason == "other data" else "sha256:d", **nothing)
    lab.add("aaaaaaaa", draw(0, 0.2), **nothing)
    (tab,) = board(lab.reader).tabs
    assert scores(find(tab, "aaaaaaaa")) == {}
    assert [row.id for row in tab.rows if scores(row)] == (["00000000"] if reason == "other data" else [])


@pytest.mark.parametrize(("attempt", "there"), [("a.1-b", True), ("../a.1-b", False), ("..", False), (7, False)])
def test_an_older_records_vocabulary_is_the_teachers_configuration(lab: Lab, attempt: Any, there: bool) -> None:
    lab.teacher(draw(0, 0.0), provenance={})
    lab.add("aaaaaaaa", draw(0, 0.2), provenance={})
    home = f"artifacts/teacher/{'t' * 64}"
    lab.reader.files[f"{home}/manifest.json"] = json.dumps({"attempt": attempt}).encode()
    lab.reader.files[f"{home}/{attempt}/config.json"] = json.dumps({"vocab_size": V}).encode()
    assert bool(scores(find(board(lab.reader).tabs[0], "aaaaaaaa"))) is there


def test_another_teachers_scores_are_another_column(lab: Lab) -> None:
    def named(teacher: str, row: str, reference: str) -> None:
        scratch = type(lab.reader)()
        own = Lab(scratch, type(lab.sweep)(scratch))
        own.teacher(draw(0, 0.0), row=reference)
        own.add(row, draw(0, 0.2))
        lab.reader.files |= scratch.files
        for record in scratch.records():
            lab.reader.add(record.model_copy(update={"cell": record.cell.model_copy(update={"teacher": teacher})}))

    named("first", "aaaaaaaa", "00000000")
    named("second", "bbbbbbbb", "11111111")
    keys = [{column.key for column in tab.columns if column.protocol == NAME} for tab in board(lab.reader).tabs]
    assert len(keys) == 2
    assert keys[0]
    assert not keys[0] & keys[1]


def test_definitions_are_in_advance_and_their_chance_is_the_best_constant_answer() -> None:
    for overall in OVERALLS:
        assert sum(overall.weights.values()) == pytest.approx(1)
        for task, metrics in overall.tasks.items():
            for metric in metrics:
                assert chance(task, metric) == pytest.approx(best_constant(task, metric))


def test_the_counts_add_up_to_the_splits() -> None:
    sizes = {"sst2": 872, "mrpc": 408, "qqp": 40_430, "mnli": 9_815, "qnli": 5_463, "rte": 277, "wnli": 71}
    assert {name: sum(LABELS[f"glue.{name}.v1"]) for name in sizes} == sizes
    assert sum(LABELS["glue.mnli.v1 mismatched"]) == 9_832


def best_constant(task: str, metric: str) -> float:
    """By trying every constant answer on labels of the published counts."""
    if metric in ("matthews", "pearson", "spearman"):
        return 0.0  # as docs/glue.md defines an undefined score
    counts = LABELS[f"{task} mismatched" if metric == "accuracy_mismatched" else task]
    label = np.repeat(np.arange(len(counts)), counts)
    found = []
    for answer in range(len(counts)):
        right = label == answer
        positive = int((label == 1).sum())
        f1 = 2 * positive / (2 * positive + (len(label) - positive)) if answer == 1 else 0.0
        found.append(f1 if metric == "f1" else float(right.mean()))
    return max(found)


@pytest.mark.mirror
@pytest.mark.parametrize("task", ["sst2", "qnli", "rte"])
def test_the_counts_are_those_of_the_data(mirror: Path, task: str) -> None:
    import pyarrow.parquet

    (file,) = (mirror / "datasets" / "nyu-mll" / "glue" / task).glob("validation*.parquet")
    label = np.array(pyarrow.parquet.ParquetFile(file).read().column("label").to_pylist())
    assert tuple(np.bincount(label)) == LABELS[f"glue.{task}.v1"]
