"""Any task of lm-eval, or a group that has a score of its own, measured by lm-eval itself.

Gao et al., "The Language Model Evaluation Harness", 2021 (github.com/EleutherAI/lm-evaluation-harness). Prompts,
targets, metrics and their averages are lm-eval's; its own version and the task's are in the protocol's name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.interface import DataError, Fact, Measurement, Metric, Protocol
from tasks.lm_eval_index import Config, Entry, Leaf, find, installed, leaves, parts, read
from tasks.lm_eval_metrics import group_metrics, metrics_of
from tasks.lm_eval_source import Source, source_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PREFIX = "lm_eval:"
NAME = re.compile(r"lm_eval\.(?P<task>.+)\.(?P<shots>\d+|own)shot\.v(?P<version>[^+]+)\+(?P<lm_eval>.+)")


class LmEvalTask(Protocol):
    """`lm_eval.<task>.<examples in the prompt>shot.v<the task's version>+<lm-eval's>`.

    `num_fewshot` None takes each task's own number (0 where it has none); `revisions` are the commits of data sets that
    come from the hub. Items are documents, as in `tasks.lm_eval_items`.

    Raises:
        DataError: a name that lm-eval does not have, a tag, or a task that cannot be measured here.
    """

    batch_requests: int | None = None
    """Requests per forward pass, None chooses: execution, the result is the same up to rounding."""

    def __init__(
        self, *, task: str, num_fewshot: int | None = None, revisions: Mapping[str, str] | None = None
    ) -> None:
        self.entry, self.num_fewshot, self.revisions = find(task), num_fewshot, dict(revisions or {})
        if not scored(self.entry):
            raise DataError(f"lm-eval's {task} is several tasks without a score of their own: name one of them")
        self.leaves = tuple(leaves(self.entry))
        for leaf in self.leaves:
            _check_supported(leaf, num_fewshot)
        self.metrics = self._metrics()
        if not self.metrics:
            raise DataError(f"lm-eval's {task} reports nothing of which it says whether higher is better")
        shots = {self.shots(leaf) for leaf in self.leaves}
        said = f"{shots.pop()}" if len(shots) == 1 else "own"
        self.name = f"lm_eval.{task}.{said}shot.v{self._version()}+{installed()}"

    @classmethod
    def named(cls, name: str) -> LmEvalTask:
        """From `lm_eval:<task>`, with the task's own number of examples, or from a protocol's full name."""
        if name.startswith(PREFIX):
            return cls(task=name.removeprefix(PREFIX))
        parts = NAME.fullmatch(name)
        if parts is None:
            raise DataError(f"{name}: a task of lm-eval is called {PREFIX}<task>, as in {PREFIX}hellaswag")
        task = cls(task=parts["task"], num_fewshot=None if parts["shots"] == "own" else int(parts["shots"]))
        if task.name != name:
            raise DataError(f"{name}: with lm-eval {installed()}, which is installed here, it is {task.name}")
        return task

    def shots(self, leaf: Leaf) -> int:
        """Examples in the prompt of one of the tasks."""
        return int((leaf.config.get("num_fewshot") or 0) if self.num_fewshot is None else self.num_fewshot)

    def fields(self, mirror: Path | None) -> Mapping[str, Any]:
        asked = {source.repo: self.revision(source, mirror) for source in self.sources if not source.mirrored(mirror)}
        revisions = {repo: commit for repo, commit in asked.items() if commit}
        given = {"task": self.entry.name, "num_fewshot": self.num_fewshot}
        return given | ({"revisions": revisions} if revisions else {})

    def fingerprint(self, mirror: Path | None) -> str:
        from tasks.hub import combined

        return combined(source.fingerprint(mirror) for source in self.sources)

    def describe(self) -> dict[str, Fact]:
        shots = sorted({self.shots(leaf) for leaf in self.leaves})
        return {
            **super().describe(),
            "data": ", ".join(dict.fromkeys(source.repo or "by lm-eval's own code" for source in self.sources)),
            "lm_eval": installed(),
            "tasks": ", ".join(leaf.name for leaf in self.leaves),
            "regime": "zero-shot" if shots == [0] else f"{' or '.join(map(str, shots))} examples in the prompt",
        }

    def check(self, mirror: Path | None) -> None:
        from tasks.lm_eval_run import functions_of

        for source in self.sources:
            source.check(mirror)
        functions_of(self)

    def measure(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, mirror: Path | None) -> Measurement:
        """Run lm-eval on the documents; `DataError` for what it cannot read or a log-likelihood that is not finite."""
        from tasks.lm_eval_run import run

        return run(self, model, tokenizer, mirror)

    def revision(self, source: Source, mirror: Path | None) -> str | None:
        """The commit of a data set that comes from the hub; None for data that are no data set."""
        return (self.revisions.get(source.repo) or source.revision(mirror)) if source.repo else None

    @cached_property
    def sources(self) -> list[Source]:
        """Where each task's documents come from."""
        return [source_of(leaf, self.shots(leaf)) for leaf in self.leaves]

    @cached_property
    def group(self) -> Config | None:
        """The group's own configuration; None for a task."""
        return read(Path(self.entry.file)) if self.entry.kind == "group" else None

    def _metrics(self) -> tuple[Metric, ...]:
        each = [metrics_of(leaf.config) for leaf in self.leaves]
        return each[0] if self.group is None else group_metrics(self.group["aggregate_metric_list"], each)

    def _version(self) -> str:
        """`1` for 1.0, as in the names of other protocols; 0 where the task has none."""
        config = self.leaves[0].config if self.group is None else self.group
        metadata = config.get("metadata")
        version = metadata.get("version") if isinstance(metadata, Mapping) else metadata
        return str(version or 0).removesuffix(".0")


def scored(entry: Entry) -> bool:
    """True for a task, and for a group that averages over its tasks."""
    if entry.kind == "group":
        return bool(read(Path(entry.file)).get("aggregate_metric_list"))
    return entry.kind != "tag"


def protocols(name: str, num_fewshot: int | None) -> list[str]:
    """The full names of what `lm_eval:<name>` stands for: itself, or what is in a tag or a group without a score."""
    entry = find(name.removeprefix(PREFIX))
    if scored(entry):
        return [LmEvalTask(task=entry.name, num_fewshot=num_fewshot).name]
    return [each for part in parts(entry) for each in protocols(part, num_fewshot)]


def _check_supported(leaf: Leaf, num_fewshot: int | None) -> None:
    """Raise `DataError` for a task that is Python, runs the model's code, is not text, or has no examples to show."""
    config, task = leaf.config, f"lm-eval's task {leaf.name}"
    if "class" in config:
        raise DataError(f"{task} is a Python class, which says what it reports only when it runs; it has no protocol")
    if config.get("unsafe_code"):
        raise DataError(f"{task} executes what the model writes; that is not done here")
    if config.get("doc_to_image") or config.get("doc_to_audio"):
        raise DataError(f"{task} is not on text alone")
    if num_fewshot and config.get("num_fewshot") == 0:
        raise DataError(f"{task} has no examples in its prompt, whatever `num_fewshot` says: leave it out")
