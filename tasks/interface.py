"""The contract of a task: a named, versioned way to measure a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class DataError(ValueError):
    """Data is missing, empty or not what was expected; the message is meant for the user."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric owns its unit and direction."""

    name: str
    unit: str
    higher_is_better: bool


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What one protocol found: totals, and one line per item for intervals and pairings."""

    metrics: Mapping[str, float]
    items: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Columns of equal length. `item` identifies the item; perplexity adds `nll` (nats) and the normalisers `tokens`,
    `words`, `bytes` as far as the protocol has them; classification adds `prediction`, `label`, `correct`."""
    details: Mapping[str, Any] = field(default_factory=dict)


class Task(ABC):
    """A protocol: `name` is `<data>.<what>.v<version>`; two protocols never share a column."""

    name: str
    metrics: tuple[Metric, ...]
    """The first is the main one, shown on the board."""

    def fields(self, mirror: Path | None) -> Mapping[str, Any]:
        """What the class is built with in a worker, so that it is this task; part of the identity."""
        return {}

    @abstractmethod
    def fingerprint(self, mirror: Path | None) -> str:
        """What data this is: a content hash where the data is at hand, else `hub:<repo>@<revision>`."""

    @abstractmethod
    def check(self, mirror: Path | None) -> None:
        """Raise `DataError` when the data cannot be had, before anything runs."""


class Protocol(Task):
    """A measurement of a language model as it is, without training it."""

    @abstractmethod
    def measure(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, mirror: Path | None) -> Measurement:
        """Measure `model` (in eval mode, any device); the result does not depend on batching."""


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Labelled texts of one split; `second` is None for single-sentence tasks."""

    first: Sequence[str]
    second: Sequence[str] | None
    labels: Sequence[float]

    def __len__(self) -> int:
        return len(self.first)


class Classification(Task):
    """A task that a model is fine-tuned for and then scored on."""

    num_labels: ClassVar[int]
    """1 means regression."""
    train_examples: ClassVar[int | None] = None
    """Rows of the training split where that is published: what `plan` prices fine-tuning by."""

    @abstractmethod
    def examples(self, split: str, mirror: Path | None, limit: int | None = None) -> Examples:
        """The `train` or `validation` split, in a fixed order; `limit` keeps a fixed random subset of that size."""

    @abstractmethod
    def score(self, predictions: Sequence[float], labels: Sequence[float]) -> Mapping[str, float]:
        """The task's official metrics."""
