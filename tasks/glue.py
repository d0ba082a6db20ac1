"""The nine tasks of GLUE, with their official metrics. Wang et al., arXiv 1804.07461, table 1."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from tasks.glue_server import FILES
from tasks.hub import HubSplit, combined
from tasks.interface import Classification, DataError, Examples, Metric, Unlabelled
from tasks.scores import accuracy, f1, matthews, pearson, spearman

REPO = "nyu-mll/glue"
REVISION = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"

ACCURACY = Metric(name="accuracy", unit="fraction", higher_is_better=True)
F1 = Metric(name="f1", unit="fraction", higher_is_better=True)
MATTHEWS = Metric(name="matthews", unit="correlation", higher_is_better=True)
PEARSON = Metric(name="pearson", unit="correlation", higher_is_better=True)
SPEARMAN = Metric(name="spearman", unit="correlation", higher_is_better=True)
MISMATCHED = Metric(name="accuracy_mismatched", unit="fraction", higher_is_better=True)

SCORES = {ACCURACY: accuracy, F1: f1, MATTHEWS: matthews, PEARSON: pearson, SPEARMAN: spearman}


class Glue(Classification):
    """A task of GLUE: a subclass says its configuration, its columns, its number of labels and its metrics."""

    config: ClassVar[str]
    columns: ClassVar[tuple[str, ...]] = ("sentence1", "sentence2")
    num_labels = 2
    metrics: tuple[Metric, ...] = (ACCURACY,)
    splits: ClassVar[Mapping[str, tuple[str, ...]]] = {"train": ("train",), "validation": ("validation",)}
    """Our split -> the data set's splits it is made of."""

    def fingerprint(self, mirror: Path | None) -> str:
        return combined(split.fingerprint(mirror) for split in self._hub_splits())

    def check(self, mirror: Path | None) -> None:
        for split in self._hub_splits():
            split.check(mirror)

    def examples(self, split: str, mirror: Path | None, limit: int | None = None) -> Examples:
        assert split in self.splits, split
        return sample(self._read(self.splits[split][0], mirror), limit)

    def score(self, predictions: Sequence[float], labels: Sequence[float]) -> Mapping[str, float]:
        self._require_finite(predictions)
        return {metric.name: SCORES[metric](predictions, labels) for metric in self.metrics}

    def test_sets(self) -> Mapping[str, Unlabelled]:
        return {
            name: Texts(
                split=HubSplit(repo=REPO, config=file.config, split=file.split, revision=REVISION), columns=self.columns
            )
            for name, file in FILES.items()
            if file.protocol == self.name
        }

    def _require_finite(self, predictions: Sequence[float]) -> None:
        for row, value in enumerate(predictions):
            if not math.isfinite(value):
                raise DataError(f"{self.name}: prediction {row} is {value}")

    def _hub_splits(self) -> list[HubSplit]:
        return [self._hub_split(name) for names in self.splits.values() for name in names]

    def _hub_split(self, name: str) -> HubSplit:
        return HubSplit(repo=REPO, config=self.config, split=name, revision=REVISION)

    def _read(self, name: str, mirror: Path | None) -> Examples:
        """All rows of one of the data set's splits; `DataError` for a label that the task does not have."""
        split = self._hub_split(name)
        labels = split.column("label", mirror)
        low, high = (0.0, 5.0) if self.num_labels == 1 else (0, self.num_labels - 1)
        for row, label in enumerate(labels):
            if not _is_label(label, low, high, whole=self.num_labels > 1):
                raise DataError(f"{self.name}: label {label} in row {row} of {name}; expected {low} to {high}")
        return replace(Texts(split=split, columns=self.columns).examples(mirror), labels=labels)


def _is_label(label: Any, low: float, high: float, *, whole: bool) -> bool:
    return isinstance(label, int | float) and low <= label <= high and not (whole and label != int(label))


@dataclass(frozen=True, kw_only=True)
class Texts:
    """The texts of one split, first and second where there are pairs; an empty one is a text, a missing one is not."""

    split: HubSplit
    columns: tuple[str, ...]

    def fingerprint(self, mirror: Path | None) -> str:
        return self.split.fingerprint(mirror)

    def check(self, mirror: Path | None) -> None:
        self.split.check(mirror)

    def examples(self, mirror: Path | None) -> Examples:
        """All rows, labelled -1."""
        texts = [self._column(name, mirror) for name in self.columns]
        if not texts[0]:
            raise DataError(f"{self.split}: no rows")
        return Examples(first=texts[0], second=texts[1] if len(texts) > 1 else None, labels=[-1] * len(texts[0]))

    def _column(self, name: str, mirror: Path | None) -> list[str]:
        column = self.split.column(name, mirror)
        for row, text in enumerate(column):
            if not isinstance(text, str):
                raise DataError(f"{self.split}: {text} in column {name!r}, row {row}; expected a text")
        return column


def sample(examples: Examples, limit: int | None) -> Examples:
    """A fixed random subset of at most `limit` examples in their order."""
    import numpy as np

    if limit is None or limit >= len(examples):
        return examples
    kept = sorted(np.random.default_rng(0).permutation(len(examples))[:limit].tolist())
    second = None if examples.second is None else [examples.second[row] for row in kept]
    return Examples(
        first=[examples.first[row] for row in kept], second=second, labels=[examples.labels[row] for row in kept]
    )


class Cola(Glue):
    """Corpus of Linguistic Acceptability: is this sentence grammatical."""

    name = "glue.cola.v1"
    config = "cola"
    train_examples = 8551
    columns = ("sentence",)
    metrics = (MATTHEWS,)


class Sst2(Glue):
    """Stanford Sentiment Treebank: is this phrase positive."""

    name = "glue.sst2.v1"
    config = "sst2"
    train_examples = 67_349
    columns = ("sentence",)


class Mrpc(Glue):
    """Microsoft Research Paraphrase Corpus: do two sentences say the same."""

    name = "glue.mrpc.v1"
    config = "mrpc"
    train_examples = 3668
    metrics = (F1, ACCURACY)


class Qqp(Glue):
    """Quora Question Pairs: do two questions ask the same."""

    name = "glue.qqp.v1"
    config = "qqp"
    train_examples = 363_846
    columns = ("question1", "question2")
    metrics = (F1, ACCURACY)


class Stsb(Glue):
    """Semantic Textual Similarity Benchmark: how alike are two sentences, from 0 to 5."""

    name = "glue.stsb.v1"
    config = "stsb"
    train_examples = 5749
    num_labels = 1
    metrics = (PEARSON, SPEARMAN)


class Mnli(Glue):
    """Multi-Genre Natural Language Inference: entailment, neutral or contradiction.

    The validation split is the matched examples followed by the mismatched ones (genres not seen in training), of n
    examples min(9815, n / 2 rounded up) matched; `accuracy` is that of the matched part. Data that are parted otherwise
    are refused.
    """

    name = "glue.mnli.v1"
    config = "mnli"
    train_examples = 392_702
    columns = ("premise", "hypothesis")
    num_labels = 3
    metrics = (ACCURACY, MISMATCHED)
    splits: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "train": ("train",),
        "validation": ("validation_matched", "validation_mismatched"),
    }

    def examples(self, split: str, mirror: Path | None, limit: int | None = None) -> Examples:
        if split != "validation":
            return super().examples(split, mirror, limit)
        parts = [self._read(name, mirror) for name in self.splits[split]]
        total = sum(len(part) for part in parts)
        number = total if limit is None else min(limit, total)
        if _matched(total) != len(parts[0]):
            raise DataError(f"{self.name}: {len(parts[0])} matched and {len(parts[1])} mismatched validation examples")
        matched = sample(parts[0], _matched(number))
        mismatched = sample(parts[1], number - _matched(number))
        assert matched.second is not None
        assert mismatched.second is not None
        return Examples(
            first=[*matched.first, *mismatched.first],
            second=[*matched.second, *mismatched.second],
            labels=[*matched.labels, *mismatched.labels],
        )

    def score(self, predictions: Sequence[float], labels: Sequence[float]) -> Mapping[str, float]:
        self._require_finite(predictions)
        parts = {metric.name: self.items_of(metric.name, len(labels)) for metric in self.metrics}
        return {name: accuracy(predictions[part], labels[part]) for name, part in parts.items()}

    def held_out_score(self, predictions: Sequence[float], labels: Sequence[float]) -> float:
        return accuracy(predictions, labels)

    def items_of(self, metric: str, number: int) -> slice:
        cut = _matched(number)
        return slice(cut) if metric == ACCURACY.name else slice(cut, None)


def _matched(number: int) -> int:
    """How many of the first `number` validation examples of MNLI are matched ones."""
    return min(9815, (number + 1) // 2)


class Qnli(Glue):
    """Question NLI, from SQuAD: does the sentence answer the question."""

    name = "glue.qnli.v1"
    config = "qnli"
    train_examples = 104_743
    columns = ("question", "sentence")


class Rte(Glue):
    """Recognising Textual Entailment, four years of it."""

    name = "glue.rte.v1"
    config = "rte"
    train_examples = 2490


class Wnli(Glue):
    """Winograd NLI: does the sentence hold with its pronoun replaced."""

    name = "glue.wnli.v1"
    config = "wnli"
    train_examples = 635
