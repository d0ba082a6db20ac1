"""The contract of a task: a named, versioned way to measure a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from typing import Protocol as Structure

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


Fact = str | int | float | bool | None


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
    `words`, `bytes` as far as the protocol has them; classification adds `prediction`, `label`, `correct`,
    `logit_<class>`, and `in_<metric>` (true or false) where a metric is over part of the items."""
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

    def describe(self) -> dict[str, Fact]:
        """What the number is: flat facts for people and JSON. A change of any of them is a new version."""
        directions = {True: "higher", False: "lower"}
        described = (f"{m.name}: {m.unit}, {directions[m.higher_is_better]} is better" for m in self.metrics)
        return {"name": self.name, "metrics": "; ".join(described)}


class Protocol(Task):
    """A measurement of a language model as it is, without training it."""

    @abstractmethod
    def measure(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, mirror: Path | None) -> Measurement:
        """Measure `model` (in eval mode, any device); the result does not depend on batching."""


def _alone(values: list[float]) -> list[float]:
    return values


@dataclass(frozen=True, kw_only=True)
class Run:
    """How a protocol is measured: the result depends on none of it, up to rounding."""

    batch: int | None = None
    """Items per forward pass; None chooses by their length and the device."""
    rank: int = 0
    world: int = 1
    """Of several workers this one measures the items `rank`, `rank + world`, ... of a fixed order."""
    combine: Callable[[list[float]], list[float]] = _alone
    """Element by element the sum over all workers; each of them calls it equally often, in the same order."""
    progress: Callable[[int, int], None] = lambda done, total: None
    """Takes the tokens that this worker has read and those that it will."""


ALONE = Run()


class Divisible(Protocol):
    """A protocol whose items are measured one by one, so that several workers can share them."""

    @abstractmethod
    def measure(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, mirror: Path | None, run: Run = ALONE
    ) -> Measurement:
        """As `Protocol.measure`; with several workers each returns the whole."""


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Labelled texts of one split; `second` is None for single-sentence tasks."""

    first: Sequence[str]
    second: Sequence[str] | None
    labels: Sequence[float]

    def __len__(self) -> int:
        return len(self.first)


class Unlabelled(Structure):
    """Texts whose labels a server keeps."""

    def fingerprint(self, mirror: Path | None) -> str:
        """As `Task.fingerprint`."""

    def check(self, mirror: Path | None) -> None:
        """Raise `DataError` when the texts cannot be had."""

    def examples(self, mirror: Path | None) -> Examples:
        """The texts in the server's order; their labels mean nothing."""


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

    def held_out_score(self, predictions: Sequence[float], labels: Sequence[float]) -> float:
        """The main metric on examples of the training split, by which a learning rate is chosen."""
        return self.score(predictions, labels)[self.metrics[0].name]

    def items_of(self, metric: str, number: int) -> slice:
        """Which of so many validation examples a metric is over: all, unless the task says otherwise."""
        return slice(None)

    def test_sets(self) -> Mapping[str, Unlabelled]:
        """Sets that are predicted where a sweep asks for it (`predict_test`), by the names of their files."""
        return {}
