"""A sweep that takes seconds: a text of random words, a teacher of 12,000 weights, a task and methods of a plug-in."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import yaml

from harness.cli import main
from harness.graph import LIBRARIES
from results.artifacts import Artifacts
from results.store import Store

WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "sat",
    "ran",
    "on",
    "under",
    "mat",
    "hill",
    "red",
    "small",
    "and",
    "then",
    ",",
    ".",
    "quickly",
    "slowly",
]

PLUGIN = '''
"""A third party's task and methods."""

from dataclasses import dataclass
from random import Random

import torch

from methods.families import architecture
from methods.interface import MethodError, Phase, Plan, Tap
from methods.planning import student_size
from methods.svd import Svd
from methods.student import from_teacher
from tasks.perplexity import TokenPerplexity

WORDS = {words!r}


class Words:
    def documents(self, mirror):
        draw = Random(7)
        return [" ".join(draw.choices(WORDS, k=40)) for _ in range(6)]

    def fingerprint(self, mirror):
        return "words-7"

    def check(self, mirror):
        pass


class WordPerplexity(TokenPerplexity):
    name = "words.token_ppl.v1"
    source = Words()


@dataclass(frozen=True, kw_only=True)
class Raises(Svd):
    def compress(self, teacher, plan, *, seed, statistics):
        raise RuntimeError("no convergence")


@dataclass(frozen=True, kw_only=True)
class NotANumber(Svd):
    def compress(self, teacher, plan, *, seed, statistics):
        student = super().compress(teacher, plan, seed=seed, statistics=statistics)
        with torch.no_grad():
            next(student.parameters()).fill_(float("nan"))
        return student


@dataclass(frozen=True, kw_only=True)
class TooLarge(Svd):
    def compress(self, teacher, plan, *, seed, statistics):
        return from_teacher(teacher, Plan(size=0))


@dataclass(frozen=True, kw_only=True)
class Staged(Svd):
    """The first block at once, the others after a quarter of the training."""

    def phases(self, teacher_config, plan):
        first = {{path: spec for path, spec in plan.surgery.items() if ".h.0." in path}}
        size = student_size(architecture(teacher_config), first)
        return (Phase(plan=Plan(size=size, surgery=first), share=0.25), Phase(plan=plan, share=0.75))


@dataclass(frozen=True, kw_only=True)
class Tapped(Svd):
    """Compares whatever it is told to."""

    teacher: str = "transformer.h.0"
    student: str = "transformer.h.0"
    kind: str = "output"
    loss: str = "mse"
    project: bool = False

    def taps(self, teacher_config, plan):
        tap = Tap(
            teacher=self.teacher, student=self.student, kind=self.kind, loss=self.loss, project=self.project
        )
        return (tap,)


@dataclass(frozen=True, kw_only=True)
class LeftOnly(Svd):
    """Trains one factor of each matrix and nothing else; only with statistics of the inputs."""

    needs = frozenset({{"gram", "abs_mean"}})

    def refine(self, teacher, plan, statistics):
        return Plan(size=plan.size, surgery=plan.surgery, trained=("left",))

    def compress(self, teacher, plan, *, seed, statistics):
        if set(statistics) != self.needs or not statistics["gram"]:
            raise MethodError(f"no statistics but {{set(statistics)}}")
        return super().compress(teacher, plan, seed=seed, statistics=statistics)
'''

ENTRY_POINTS = """
[weighin.methods]
raises = third_party:Raises
not_a_number = third_party:NotANumber
too_large = third_party:TooLarge
staged = third_party:Staged
left_only = third_party:LeftOnly
tapped = third_party:Tapped
unimportable = third_party_broken:Method

[weighin.tasks]
words.token_ppl.v1 = third_party:WordPerplexity
"""


def write_plugin(directory: Path) -> Path:
    """Install the third party's distribution: its entry points are found where `directory` is on the path."""
    (directory / "third_party.py").write_text(PLUGIN.format(words=WORDS))
    (directory / "third_party_broken.py").write_text("import no_such_library\n")
    information = directory / "third_party-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1\n")
    (information / "entry_points.txt").write_text(ENTRY_POINTS)
    return directory


def write_corpus(directory: Path) -> Path:
    """A folder of short texts in the splits train and validation."""
    draw = random.Random(0)
    for split, count in (("train", 30), ("validation", 3)):
        (directory / split).mkdir(parents=True)
        for number in range(count):
            (directory / split / f"{number}.txt").write_text(" ".join(draw.choices(WORDS, k=60)))
    return directory


def recipe(**changes: Any) -> dict[str, Any]:
    """Four steps, unless told otherwise."""
    return {"tokens": 512, "batch_tokens": 128, "sequence_length": 32, "learning_rate": 1e-2} | changes


def sweep(corpus: Path | str, /, **changes: Any) -> dict[str, Any]:
    """Identity and low rank, distilled and measured by the plug-in's task."""
    config = {"n_layer": 2, "n_embd": 16, "n_head": 2, "n_positions": 32, "vocab_size": 300}
    return {
        "name": "micro",
        "teacher": {"name": "micro-gpt2", "pretrain": {"config": config, "recipe": recipe()}},
        "corpus": {"directory": str(corpus)},
        "methods": ["identity", "svd"],
        "budgets": [{"params": 0.8}],
        "recipes": [recipe(losses={"ce": 0.5, "kd": 0.5})],
        "tasks": [{"task": "words.token_ppl.v1", "before_training": True}],
    } | changes


def write(path: Path, content: Mapping[str, Any] | str) -> Path:
    """A sweep file."""
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return path


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.out)


def weighin(*arguments: object) -> Ended:
    """The command line, in this process."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
            code: Any = 0
        except SystemExit as stop:
            code = stop.code
    return Ended(code or 0, out.getvalue(), err.getvalue())


def board_rows(board: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Row id -> row of a board's JSON, references included."""
    groups = [group["rows"] for tab in board["tabs"] for group in tab["groups"]]
    rows = [row for rows in [*groups, *(tab["references"] for tab in board["tabs"])] for row in rows]
    return {row["id"]: row for row in rows}


def made(store: Path | str) -> set[tuple[str, str, str]]:
    """Stage, key and attempt of every artifact."""
    artifacts = Artifacts(Store(str(store)))
    return {(m.stage, m.key, m.attempt) for stage in LIBRARIES for m in artifacts.manifests(stage)}
