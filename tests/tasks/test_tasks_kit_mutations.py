"""The kit catches what is planted in a protocol or a classification, by the name of the matter."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.items_check import ITEMS_CHECK
from tasks import conformance
from tasks.interface import Classification, DataError, Examples, Measurement, Metric, Protocol, Task
from tasks.scores import accuracy, matthews

PPL = Metric(name="ppl", unit="perplexity per token", higher_is_better=False)
ACCURACY = Metric(name="accuracy", unit="fraction", higher_is_better=True)
MATTHEWS = Metric(name="matthews", unit="correlation", higher_is_better=True)
WINDOW = 32


def found_in(task: Task, golden: Path | None = None) -> dict[str, str]:
    """Failed check -> message."""
    findings = conformance.check_task(task, golden=golden, extra=[ITEMS_CHECK])
    return {each.check: each.message for each in findings if each.status == "failed"}


class Mutant:
    """What both kinds of task declare, wrong in the way that `how` names."""

    def __init__(self, how: str = "") -> None:
        self.how = how
        self.calls = 0
        self.name = {"unversioned": "words.ppl", "bare": "words.v1", "version zero": "words.ppl.v"}.get(how, self.name)
        self.metrics = self.declared()

    def declared(self) -> Any:
        first, *others = self.metrics
        other: dict[str, Any] = {"name": first.name, "unit": first.unit, "higher_is_better": first.higher_is_better}
        other |= {"no unit": {"unit": ""}, "no direction": {"higher_is_better": None}}.get(self.how, {})
        other |= {"higher_is_better": not first.higher_is_better} if self.how == "wrong direction" else {}
        declared: list[Any] = [Metric(**other), *others]
        return {"no metrics": (), "names of metrics": ("ppl",), "a metric twice": (first, *self.metrics)}.get(
            self.how, tuple(declared)
        )

    def fingerprint(self, mirror: Path | None) -> str:
        self.calls += 1
        return {"random fingerprint": f"{random.random()}", "long fingerprint": "a\nb", "no fingerprint": ""}.get(
            self.how, f"counted {self.calls}" if self.how == "counted fingerprint" else "words-7"
        )

    def check(self, mirror: Path | None) -> None:
        if self.missing(mirror):
            if self.how == "missing: another error":
                raise KeyError("text")
            if self.how == "missing: two lines":
                raise DataError("no words\nget some")
            if self.how == "missing: said":
                raise DataError("no words in the mirror")

    def missing(self, mirror: Path | None) -> bool:
        return self.how.startswith("missing") and mirror is not None and not any(mirror.iterdir())

    def need(self, mirror: Path | None) -> None:
        if self.missing(mirror):
            raise DataError("no words in the mirror")


class Plain(Mutant, Protocol):
    """Perplexity in windows by a plain loop."""

    name = "words.token_ppl.v1"
    metrics = (PPL,)
    batch_windows = 4

    def measure(self, model: Any, tokenizer: Any, mirror: Path | None) -> Measurement:
        self.need(mirror)
        draw = random.Random(7)
        ids = tokenizer(" ".join(draw.choices(["the", "cat", "ran", "quickly"], k=60)))["input_ids"]
        nll, tokens = [], []
        for begin in range(0, len(ids) - 1, WINDOW):
            window = torch.tensor([ids[begin : begin + WINDOW + 1]])
            nll.append(self.score(model, window))
            tokens.append(window.shape[1] - 1)
        total = sum(tokens) + (self.how == "one token more")
        ppl = math.exp(sum(nll) / total) + {"draws": random.random(), "draws torch": float(torch.rand(()))}.get(
            self.how, 0.0
        )
        ppl *= 1 + 0.01 * self.batch_windows if self.how == "depends on the batch" else 1
        return Measurement(metrics={self.reported(): ppl}, items=self.items(nll, tokens))

    def score(self, model: Any, window_BT: torch.Tensor) -> float:
        with torch.no_grad():
            logits = model(window_BT).logits[0]
        late = {"scores the token itself": 0, "scores the token after the next": 2}.get(self.how, 1)
        length = window_BT.shape[1] - 1
        target = window_BT[0, late : late + length]
        logits = (2 if self.how == "sharpens" else 1) * logits[: len(target)].double()
        log_p = logits if self.how == "forgets to normalise" else logits.log_softmax(-1)
        return abs(float(-log_p.gather(-1, target[:, None]).sum()))

    def reported(self) -> str:
        return "perplexity" if self.how == "reports another metric" else "ppl"

    def items(self, nll: list[float], tokens: list[int]) -> Mapping[str, Sequence[Any]]:
        names = [str(place) for place in range(len(nll))]
        columns: dict[str, Sequence[Any]] = {"item": names, "nll": nll, "tokens": tokens}
        changed: dict[str, dict[str, Sequence[Any]]] = {
            "drops an item": {name: column[1:] for name, column in columns.items()},
            "a short column": {**columns, "nll": nll[1:]},
            "items alike": {**columns, "item": ["page"] * len(nll)},
            "nameless items": {"nll": nll, "tokens": tokens},
            "a negative nll": {**columns, "nll": [-1.0, *nll[1:]]},
            "a NaN": {**columns, "nll": [math.nan, *nll[1:]]},
            "no items": {},
        }
        return changed.get(self.how, columns)


class Words(Mutant, Classification):
    """Are there more cats than dogs? Scored by accuracy and by Matthews correlation."""

    name = "words.cats.v1"
    metrics = (ACCURACY, MATTHEWS)
    num_labels = 2

    def examples(self, split: str, mirror: Path | None, limit: int | None = None) -> Examples:
        self.need(mirror)
        draw = random.Random(split)
        texts = [" ".join(draw.choices(["cat", "dog", "the"], k=9)) for _ in range(300)]
        if self.how == "another order":
            random.Random(random.random()).shuffle(texts)
        if self.how == "limit draws anew" and limit:
            texts = random.Random(random.random()).sample(texts, limit)
        if self.how == "limit makes examples" and limit:
            texts = [f"{text} cat" for text in texts]
        if self.how != "ignores the limit":
            texts = texts[:limit]
        labels: list[float] = [int(text.count("cat") > text.count("dog")) for text in texts]
        labels = {"a label too many": [*labels, 1], "label 2": [2, *labels[1:]], "one class": [0] * len(labels)}.get(
            self.how, labels
        )
        labels = [0.5, *labels[1:]] if self.how == "half a label" else labels
        return Examples(first=texts, second=None, labels=labels)

    def score(self, predictions: Sequence[float], labels: Sequence[float]) -> Mapping[str, float]:
        found = {"accuracy": accuracy(predictions, labels), "matthews": matthews(predictions, labels)}
        changed: dict[str, float] = {
            "off by one": accuracy(predictions[1:], labels[:-1]),
            "looks at itself": 1.0,
            "counts errors": 1 - found["accuracy"],
            "draws": found["accuracy"] + random.random() / 100,
            "is infinite": math.inf if predictions != labels else 1.0,
        }
        if self.how == "scores less":
            return {"accuracy": found["accuracy"]}
        return found | ({"accuracy": changed[self.how]} if self.how in changed else {})


@pytest.mark.parametrize("task", [Plain(), Plain("missing: said"), Words(), Words("missing: said")])
def test_what_is_not_mutated_conforms(task: Any) -> None:
    assert found_in(task) == {}


DECLARED = [
    ("unversioned", "its name is versioned", "its name is 'words.ppl'; write <data>.<what>.v<version>"),
    ("bare", "its name is versioned", "its name is 'words.v1'"),
    ("version zero", "its name is versioned", "its name is 'words.ppl.v'"),
    ("no metrics", "its metrics have a unit and a direction", "it declares no metrics"),
    ("names of metrics", "its metrics have a unit and a direction", "metrics holds 'ppl'; write Metric("),
    ("no unit", "its metrics have a unit and a direction", "has no unit"),
    ("no direction", "its metrics have a unit and a direction", "does not say whether higher is better"),
    ("a metric twice", "its metrics have a unit and a direction", "two metrics are called"),
    ("wrong direction", "knowing is better than guessing", "is better; one that knows has 1, one that guesses"),
    ("random fingerprint", "its fingerprint is stable", "the fingerprint changes from call to call: 0."),
    ("counted fingerprint", "its fingerprint is stable", "the fingerprint changes from call to call: counted 1, then"),
    ("long fingerprint", "its fingerprint is stable", "the fingerprint is 'a\\nb', should be one line of text"),
    ("no fingerprint", "its fingerprint is stable", "the fingerprint is ''"),
    ("missing: another error", "missing data is one line", "without its data check raises KeyError: 'text'; raise a"),
    ("missing: two lines", "missing data is one line", "without its data check says 'no words\\nget some'; say in one"),
    ("missing: silent", "missing data is one line", "check is silent without the data, but measuring raises DataError"),
]


@pytest.mark.parametrize("kind", [Plain, Words])
@pytest.mark.parametrize(("how", "check", "words"), DECLARED)
def test_a_wrong_declaration_is_caught(kind: Any, how: str, check: str, words: str) -> None:
    found = found_in(kind(how))
    assert words in found[check]
    assert "\n" not in found[check]


KNOWS, GUESSES = "a model that knows is perfect", "a model that guesses is at chance"
BOARD, MEASURES = "the board computes it again from the items", "it measures what it declares, and items"
TWICE = "two measurements are equal bit for bit"


@pytest.mark.parametrize(
    ("how", "check", "words"),
    [
        ("draws", TWICE, "two measurements of one model differ: ppl is"),
        ("draws torch", TWICE, "two measurements of one model differ: ppl is"),
        ("depends on the batch", "batches change nothing", "a batch of 4 gives another result than one of 1: ppl is"),
        ("scores the token itself", KNOWS, "is each token scored by the logits of the one before it?"),
        ("scores the token after the next", KNOWS, "of a model that knows every next token is"),
        ("forgets to normalise", GUESSES, "the nll of item 0 of a model that guesses is 0, should be ln 257 ="),
        ("one token more", GUESSES, "ppl of a model that guesses is 25"),
        ("reports another metric", MEASURES, "it declares ppl and measures perplexity"),
        ("a short column", MEASURES, "the columns of its items have different lengths: {'item': "),
        ("items alike", MEASURES, "two of its items are called the same"),
        ("nameless items", MEASURES, "its items have no column `item`"),
        ("a negative nll", MEASURES, "the column nll holds -1.0, should be finite and not negative"),
        ("a NaN", MEASURES, "the column nll holds nan"),
        ("drops an item", BOARD, "in the items: items do not reproduce the value"),
        ("one token more", BOARD, "the board does not find ppl ="),
        ("no items", BOARD, "it gives no items, so that its values have no intervals"),
    ],
)
def test_a_mutated_protocol_is_caught(how: str, check: str, words: str) -> None:
    found = found_in(Plain(how))
    assert words in found[check]
    assert "\n" not in found[check]


LABELLED, FIXED = "its examples are labelled", "its examples are always the same"
SCORES, PERFECT = "it scores what it declares, always the same", "predictions that equal the labels are perfect"


@pytest.mark.parametrize(
    ("how", "check", "words"),
    [
        ("a label too many", LABELLED, "train has 200 texts and 201 labels"),
        ("label 2", LABELLED, "label 0 of train is 2; num_labels = 2 allows 0 to 1"),
        ("half a label", LABELLED, "label 0 of train is 0.5"),
        ("one class", LABELLED, "all labels of train are 0"),
        ("another order", FIXED, "two readings of validation give other examples, or another order"),
        ("limit draws anew", FIXED, "two readings with limit = 20 give other examples"),
        ("limit makes examples", FIXED, "limit = 20 gives an example that is not in validation"),
        ("ignores the limit", FIXED, "limit = 20 gives 300 of 300 examples"),
        ("draws", SCORES, "the same predictions get another score the second time"),
        ("scores less", SCORES, "it declares accuracy, matthews and scores accuracy"),
        ("is infinite", SCORES, "accuracy of guesses is inf"),
        ("off by one", PERFECT, "accuracy of predictions that equal the labels is 0."),
        ("counts errors", PERFECT, "accuracy of predictions that equal the labels is 0, should be 1"),
        ("looks at itself", "guesses are at chance", "accuracy of guesses is 1.000, should be at most"),
        ("looks at itself", "knowing is better than guessing", "accuracy is 1 for one that knows and for one that"),
        ("looks at itself", BOARD, "the board does not find accuracy = 1 in the items"),
    ],
)
def test_a_mutated_classification_is_caught(how: str, check: str, words: str) -> None:
    found = found_in(Words(how))
    assert words in found[check]
    assert "\n" not in found[check]


@dataclass(frozen=True)
class Run:
    batch: int | None = None


class Told(Plain):
    """Is told its batch when it measures."""

    def measure(self, model: Any, tokenizer: Any, mirror: Path | None, run: Run = Run()) -> Measurement:
        self.batch_windows = run.batch or 4
        return super().measure(model, tokenizer, mirror)


def test_a_batch_that_measure_is_told_is_varied() -> None:
    assert found_in(Told()) == {}
    assert "a batch of 4 gives another" in found_in(Told("depends on the batch"))["batches change nothing"]


def test_without_a_batch_size_there_is_nothing_to_vary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Plain, "batch_windows")
    (finding,) = (f for f in conformance.check_task(Plain()) if f.check == "batches change nothing")
    assert (finding.status, "it has no batch size" in finding.message) == ("n/a", True)


OUTPUT = "its output is that of its version"


@pytest.mark.parametrize(("task", "other"), [(Plain(), Plain("sharpens")), (Words(), Words("one class"))])
def test_another_output_under_the_same_version_is_caught(task: Any, other: Any, tmp_path: Path) -> None:
    golden = tmp_path / "golden.json"
    assert OUTPUT not in found_in(task, golden)
    kept = golden.read_text()
    assert OUTPUT not in found_in(task, golden)
    message = found_in(other, golden)[OUTPUT]
    assert message.startswith(f"the output of {task.name} changed (")
    assert message.endswith("): bump its version")
    assert golden.read_text() == kept
    other.name = task.name.replace("v1", "v2")
    assert OUTPUT not in found_in(other, golden)
    assert set(json.loads(golden.read_text())) == {task.name, other.name}


def test_output_on_other_data_is_not_compared(tmp_path: Path) -> None:
    golden = tmp_path / "golden.json"
    found_in(Plain(), golden)
    golden.write_text(golden.read_text().replace("words-7", "words-8"))
    (finding,) = (f for f in conformance.check_task(Plain("sharpens"), golden=golden) if f.check == OUTPUT)
    assert (finding.status, finding.message) == ("n/a", "golden.json has its output on other data")


def test_a_suite_gets_a_line_per_failure() -> None:
    conformance.assert_conforms(Plain())
    with pytest.raises(AssertionError) as failed:
        conformance.assert_conforms(Plain("unversioned"))
    head, *lines = str(failed.value).splitlines()
    assert head.endswith("breaks the contract:")
    assert [line.partition(":")[0] for line in lines] == ["its name is versioned"]


def test_data_that_are_not_at_hand_are_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no words in the mirror"):
        conformance.check_task(Words("missing: said"), mirror=tmp_path)


def test_a_text_that_is_not_at_hand_is_replaced_by_the_embedded_one(tmp_path: Path) -> None:
    findings = conformance.check("wikitext2.token_ppl.v1", mirror=tmp_path)
    assert {(each.on, each.status) for each in findings} <= {("the embedded text", s) for s in ("passed", "n/a")}
