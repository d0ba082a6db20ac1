"""What the checks look at: a task, its data in short, and tiny models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.conformance import models
from tasks.interface import Classification, DataError, Examples, Measurement, Protocol, Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DOCUMENT_CHARACTERS = 1000
TEXT_CHARACTERS = 6000
TRAIN_ROWS = 200


class NotApplicable(Exception):
    """Nothing of the task can be checked in this way."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A task and where its data are; `task` itself is never measured, only copies are."""

    task: Task
    mirror: Path | None
    registered: str | None = None
    """The name that it was asked for by."""
    golden: Path | None = None
    """A JSON file of outputs by task name."""

    @property
    def protocol(self) -> Protocol:
        """A copy that reads the beginning of the text."""
        assert isinstance(self.task, Protocol), "it measures a model as it is"
        return shortened(self.task, self._text)

    @property
    def classification(self) -> Classification:
        """A copy."""
        assert isinstance(self.task, Classification), "a model is fine-tuned for it"
        return deepcopy(self.task)

    @cached_property
    def on(self) -> str:
        """Which data: its own, or the embedded text where its own is not at hand. `DataError` when there is none."""
        try:
            self.task.check(self.mirror)
        except DataError:
            if not has_text(self.task):
                raise
            return "the embedded text"
        except Exception:  # the check of missing data says which
            return "its own data"
        return "its own data"

    @property
    def own(self) -> bool:
        """True when it is measured on its own data."""
        return self.on == "its own data"

    @property
    def fingerprint(self) -> str:
        """Of the data that it is measured on."""
        return (self.task if self.own else self._text).fingerprint(self.mirror)

    @cached_property
    def _text(self) -> Any:
        if self.own:
            return getattr(self.task, "source", None)
        from tasks.embedded_tasks import Manual

        return Manual()

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return models.tokenizer()

    @cached_property
    def model(self) -> PreTrainedModel:
        return models.random_model()

    def measure(self, task: Protocol | None = None) -> Measurement:
        """What the task, or a changed copy of it, finds of the tiny model with random weights."""
        return (task or self.protocol).measure(self.model, self.tokenizer, self.mirror)

    @cached_property
    def measured(self) -> Measurement:
        """The same; measured once for all checks."""
        return self.measure()

    @cached_property
    def known(self) -> Measurement:
        """Of a model that gives every next token a probability of one; NotApplicable when no such model is known."""
        self._require_likelihoods()
        return self.protocol.measure(models.oracle(), models.counting_tokenizer(), self.mirror)

    @cached_property
    def guessed(self) -> Measurement:
        """Of a model that gives every token the same probability; NotApplicable as for `known`."""
        self._require_likelihoods()
        return self.protocol.measure(models.uniform(), self.tokenizer, self.mirror)

    def _require_likelihoods(self) -> None:
        if "nll" not in self.measured.items:
            raise NotApplicable("its items have no `nll`: the kit knows no model that answers all of it")

    @cached_property
    def train(self) -> Examples:
        return self.classification.examples("train", self.mirror, TRAIN_ROWS)

    @cached_property
    def validation(self) -> Examples:
        return self.classification.examples("validation", self.mirror)


def has_text(task: Task) -> bool:
    """True where the data are the documents of a `source`."""
    return hasattr(getattr(task, "source", None), "documents")


def shortened(task: Protocol, text: Any) -> Protocol:
    """A copy that reads the beginning of `text`; a plain copy where the data are no text of a `source`."""
    short = deepcopy(task)
    if has_text(task):
        vars(short)["source"] = Beginning(text)
    return short


class Beginning:
    """The first documents of a text, each cut; everything else is the text's."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._source, name)

    def documents(self, mirror: Path | None) -> list[str]:
        """At most `TEXT_CHARACTERS`, in documents of at most `DOCUMENT_CHARACTERS`."""
        kept: list[str] = []
        for text in self._source.documents(mirror):
            if sum(map(len, kept)) >= TEXT_CHARACTERS:
                break
            kept.append(text[:DOCUMENT_CHARACTERS])
        return kept


@dataclass(frozen=True, kw_only=True)
class Check:
    """A title, and a function that yields problems."""

    title: str
    run: Callable[[Bench], Iterator[str]]
