"""Protocols on the embedded corpus: two perplexities, and two classification tasks in GLUE's shapes.

Both classification tasks ask about word order, which a model has to have learned from text: a phrase and its altered
copy hold the same words. Examples come from phrases of the corpus: training ones from its `train` split, validation
ones from `validation` and `test`, without phrases that the training documents also have. A hash of the phrase orders
them and labels alternate, so that the classes are balanced and nothing is drawn at random.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

from tasks import embedded
from tasks.interface import Classification, Examples, Fact, Metric
from tasks.lm_eval_perplexity import LmEvalPerplexity
from tasks.perplexity import TokenPerplexity
from tasks.scores import accuracy

Words = tuple[str, ...]

VALIDATION_SIZE = 1000
SPLITS = {"train": ("train",), "validation": ("validation", "test")}
_SENTENCE_END = re.compile(r"(?<=[.!?]) ")


class Manual:
    """The documents of the embedded corpus's `test` split, which no training reads."""

    def documents(self, mirror: Path | None) -> list[str]:
        return embedded.documents("test")

    def fingerprint(self, mirror: Path | None) -> str:
        return embedded.fingerprint()

    def check(self, mirror: Path | None) -> None:
        embedded.documents("test")

    def describe(self) -> Mapping[str, Fact]:
        return {"data": "the manual of the Python that measures", "split": "test"}


class PydocTokens(TokenPerplexity):
    """Perplexity per token of the embedded corpus's test documents, in windows without overlap."""

    name = "pydoc.token_ppl.v1"
    source = Manual()


class PydocLmEval(LmEvalPerplexity):
    """lm-eval's word and byte perplexity of the embedded corpus's test documents, a page each."""

    name = "pydoc.lm_eval.v1"
    source = Manual()


class PhraseOrder(Classification):
    """Is the word order of a phrase the original one (0) or altered (1)? A subclass says how examples are made."""

    metrics = (Metric(name="accuracy", unit="fraction", higher_is_better=True),)
    num_labels = 2
    words: ClassVar[int]
    """Words per phrase."""
    train_size: ClassVar[int]
    """Training examples, at most."""

    @abstractmethod
    def example(self, phrase: Words, altered: bool) -> tuple[str, str | None]:
        """First and second text made from a phrase."""

    def fingerprint(self, mirror: Path | None) -> str:
        return embedded.fingerprint()

    def check(self, mirror: Path | None) -> None:
        embedded.documents("train")

    def examples(self, split: str, mirror: Path | None, limit: int | None = None) -> Examples:
        """At most `train_size` or `VALIDATION_SIZE` examples; their order is already random, so `limit` cuts it."""
        assert split in SPLITS, split
        size = self.train_size if split == "train" else VALIDATION_SIZE
        chosen = [
            phrase
            for phrase in _phrases(self.words, split)
            if self.example(phrase, altered=True) != self.example(phrase, altered=False)
        ][:size][:limit]
        labels = [row % 2 for row in range(len(chosen))]
        texts = [self.example(phrase, altered=bool(label)) for phrase, label in zip(chosen, labels, strict=True)]
        second = [text for _, text in texts if text is not None]
        return Examples(first=[text for text, _ in texts], second=second or None, labels=labels)

    def score(self, predictions: Sequence[float], labels: Sequence[float]) -> Mapping[str, float]:
        return {"accuracy": accuracy(predictions, labels)}


class PydocReversed(PhraseOrder):
    """Do these eight consecutive words of the manual run forwards (0) or backwards (1)?"""

    name = "pydoc.reversed.v1"
    words = 8
    train_size = 3000

    def example(self, phrase: Words, altered: bool) -> tuple[str, str | None]:
        return " ".join(reversed(phrase) if altered else phrase), None


class PydocFollows(PhraseOrder):
    """Two parts of four words each: does the second follow the first (0), or are both read from the end (1)?"""

    name = "pydoc.follows.v1"
    words = 8
    train_size = 3000

    def example(self, phrase: Words, altered: bool) -> tuple[str, str | None]:
        read = tuple(reversed(phrase)) if altered else phrase
        return " ".join(read[:4]), " ".join(read[4:])


@cache
def _phrases(words: int, split: str) -> tuple[Words, ...]:
    """Distinct phrases of a split in the order of their hash; those of `validation` are not in `train`."""
    found = {phrase for part in SPLITS[split] for phrase in _read_phrases(words, part)}
    if split != "train":
        found -= set(_read_phrases(words, "train"))
    return tuple(sorted(found, key=lambda phrase: sha256(" ".join(phrase).encode()).digest()))


def _read_phrases(words: int, split: str) -> Iterator[Words]:
    """Runs of `words` words without overlap, from inside sentences: first and last word would tell the order."""
    for paragraphs in embedded.paragraphs_by_document(split).values():
        for paragraph in paragraphs:
            for sentence in _SENTENCE_END.split(paragraph):
                inner = sentence.split()[1:-1]
                for start in range(0, len(inner) - words + 1, words):
                    yield tuple(inner[start : start + words])
