"""A student of the store under the protocol of its record once more, and what measuring noise explains.

Repeated on the same hardware, libraries and threads an evaluation is equal to the bit. Where it is not, the noise is
measured: the same model is evaluated with another batch and on another number of threads, which changes nothing but the
order of sums. A difference within `MARGIN` times the largest change that this makes is noise.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.digest import digest_parts
from harness.errors import SpecError
from results.artifacts import Artifacts, Manifest
from tasks import registry
from tasks.interface import Classification, DataError, Divisible, Measurement, Protocol, Run, Task
from tasks.local import OfLocalText

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MARGIN = 10.0
SAME_MACHINE = 1e-6
OTHER_MACHINE = 1e-5
"""Relative; tolerances are never below these."""
OTHER_BATCH = 3
"""Windows per forward pass in the repetition that measures noise."""


class CannotEvaluate(Exception):
    """The evaluation cannot be repeated here; the reason is for the reader."""


@dataclass(frozen=True, kw_only=True)
class Again:
    """What the same protocol found this time."""

    metrics: Mapping[str, float]
    how: str
    """`re-evaluated` or `recomputed`."""
    counted: int | None = None
    """Items, where a metric counts right ones: one may tip over at a tie."""
    noise: Callable[[str], tuple[float, str]] | None = None
    """Metric -> its relative noise and how that was measured; the first takes as long as the evaluation, twice."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where it is repeated."""

    artifacts: Artifacts
    mirror: Path | None
    text: Path | None = None
    """Of local.* protocols."""


@dataclass(frozen=True, kw_only=True)
class Here:
    """A protocol as this checkout has it."""

    name: str
    target: str = ""
    """`module:Class`; empty where there is none of that name."""
    task: Task | None = None
    missing: str = ""
    """Why it cannot be measured by here."""


def protocol_here(name: str, place: Place) -> Here:
    """Look a protocol up by its name, and whether its data are here."""
    try:
        target = registry.resolve(name)
        task = registry.load(name if registry.is_lm_eval(name) else target)
    except DataError as error:
        return Here(name=name, missing=str(error))
    if task.name != name:
        return Here(name=name, missing=f"{target} is {task.name} here")
    if isinstance(task, OfLocalText):
        if place.text is None:
            return Here(name=name, target=target, missing="it measures a text that is not named here: --text PATH")
        task = task.reading(place.text)
    try:
        task.check(place.mirror)
    except DataError as error:
        return Here(name=name, target=target, missing=str(error))
    return Here(name=name, target=target, task=task)


def protocol_changes(measuring: Manifest, here: Here, mirror: Path | None) -> Iterator[str]:
    """What of a protocol is not as it was when the stage measured: its name, its data, its code."""
    parts = measuring.parts
    if not here.target:
        yield f"not in this checkout: {here.missing}"
        return
    if here.task and (data := here.task.fingerprint(mirror)) != parts["data"]:
        yield f"data {parts['data']}, here {data}"
    if here.target != parts["params"]["target"]:
        yield f"it was {parts['params']['target']}, here {here.target}"
    try:
        mine = digest_parts(f"harness.stages.{measuring.stage}") | digest_parts(here.target.partition(":")[0])
    except SpecError as error:
        yield str(error)
        return
    theirs = parts["code"]
    changed = sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
    if changed:
        yield f"code of {', '.join(changed)}"


def other_libraries(measuring: Manifest) -> list[str]:
    """Libraries of the evaluation that have another version here: `torch 2.9.0, here 2.13.0`."""
    found = measuring.parts["libraries"].items()
    return [f"{name} {version}, here {here}" for name, version in found if (here := _version(name)) != version]


def _version(library: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(library)
    except PackageNotFoundError:
        return "absent"


def evaluate(model: Manifest, measuring: Manifest, task: Task, place: Place) -> Again:
    """Measure `model` as the stage `measuring` did.

    Raises:
        CannotEvaluate: the model does not load, or the protocol finds nothing.
    """
    from harness.worker import prepare_process

    cpus = measuring.execution.get("cpus", 1)
    prepare_process(cpus, measuring.parts["params"].get("seed", 0))
    if not isinstance(task, Protocol):
        return _classified(measuring, task, place)
    loaded, tokenizer = _load(place.artifacts, model, gpus=measuring.execution.get("gpus", 0))
    batch = measuring.execution.get("micro_batch")
    found = _measure(task, loaded, tokenizer, place.mirror, batch)

    @cache
    def once_more(other: int | None) -> Measurement:
        return _measure(task, loaded, tokenizer, place.mirror, other)

    def noise(metric: str) -> tuple[float, str]:
        return _noise(metric, found, once_more, cpus)

    counted = len(found.items["correct"]) if "correct" in found.items else None
    return Again(metrics=found.metrics, how="re-evaluated", counted=counted, noise=noise)


def _load(artifacts: Artifacts, model: Manifest, *, gpus: float) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    import torch
    from transformers import AutoTokenizer

    from methods import student
    from methods.interface import MethodError
    from results.errors import StoreError

    try:
        source = artifacts.directory(model.stage, model.key) / "model"
        device = "cuda" if gpus and torch.cuda.is_available() else "cpu"
        return student.load(source).eval().to(device), AutoTokenizer.from_pretrained(source)
    except (MethodError, StoreError, OSError, ValueError, KeyError, TypeError) as error:
        raise CannotEvaluate(f"its checkpoint does not load: {str(error).strip().splitlines()[0]}") from error


def _measure(
    task: Protocol, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, mirror: Path | None, batch: int | None
) -> Measurement:
    try:
        if isinstance(task, Divisible):
            return task.measure(model, tokenizer, mirror, Run(batch=batch))
        return task.measure(model, tokenizer, mirror)
    except DataError as error:
        raise CannotEvaluate(str(error)) from error


def _noise(
    metric: str, found: Measurement, again: Callable[[int | None], Measurement], cpus: float
) -> tuple[float, str]:
    """The largest relative change by another batch, and by another number of threads."""
    import torch

    threads = max(1, int(cpus))
    other = 1 if threads > 1 else 2
    changes = [_relative(again(OTHER_BATCH).metrics[metric], found.metrics[metric])]
    torch.set_num_threads(other)
    try:
        changes.append(_relative(again(None).metrics[metric], found.metrics[metric]))
    finally:
        torch.set_num_threads(threads)
    return max(changes), f"batch {OTHER_BATCH} and {other} threads instead of {threads}"


def _relative(value: float, reference: float) -> float:
    gap = abs(value - reference)
    return gap / abs(reference) if reference else gap


def tolerance(claimed: float, again: Again, metric: str, *, elsewhere: bool) -> tuple[float, str]:
    """The largest |difference| that is noise, and where that comes from; `elsewhere`: hardware or libraries differ."""
    floor = OTHER_MACHINE if elsewhere else SAME_MACHINE
    size, source = 0.0, "arithmetic on stored predictions"
    if again.noise:
        size, how = again.noise(metric)
        source = f"{MARGIN:g} times the noise of {size:.2g} relative ({how})"
    relative = max(MARGIN * size, floor)
    if relative == floor:
        source = f"{floor:g} relative, {'other' if elsewhere else 'the same'} hardware and libraries; {source}"
    least = 1 / again.counted if again.counted and elsewhere else 0.0
    allowed = relative * abs(claimed) if claimed and math.isfinite(claimed) else relative
    return (least, f"one item of {again.counted}") if least > allowed else (allowed, source)


def _classified(measuring: Manifest, task: Task, place: Place) -> Again:
    """A fine-tuned task: its classifier again where it is kept (a teacher's), else its predictions scored again."""
    import pyarrow.parquet as pq

    assert isinstance(task, Classification), f"{task.name} is neither a protocol nor a classification"
    try:
        home = place.artifacts.directory(measuring.stage, measuring.key)
        stored = pq.read_table(home / "items.parquet").to_pydict()
        labels = [float(label) for label in task.examples("validation", place.mirror).labels]
    except Exception as error:  # a damaged file or data of another form: whatever the reader raises is the reason
        raise CannotEvaluate(f"its predictions cannot be read: {str(error).strip().splitlines()[0]}") from error
    if [float(label) for label in stored["label"]] != labels:
        raise CannotEvaluate("the labels beside its predictions are not those of the task")
    if any(file.startswith("model/") for file in measuring.files):
        return _with_classifier(measuring, task, place, home / "model", labels)
    return Again(metrics=dict(task.score(stored["prediction"], labels)), how="recomputed")


def _with_classifier(
    measuring: Manifest, task: Classification, place: Place, source: Path, labels: list[float]
) -> Again:
    from transformers import AutoTokenizer

    from harness.engine.predict import predict
    from methods import student
    from methods.recipe import FineTune
    from tasks.encoding import encode

    recipe = FineTune.model_validate_json(json.dumps(measuring.parts["params"]["recipe"]))
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = student.load(source, head="classification", num_labels=task.num_labels)
    examples = encode(tokenizer, task.examples("validation", place.mirror), recipe.max_length)

    def scored(batch: int) -> Mapping[str, float]:
        logits_NC = predict(model, examples.input_ids, examples.pad_token_id, batch_examples=batch)
        found: list[Any] = (logits_NC[:, 0] if task.num_labels == 1 else logits_NC.argmax(-1)).tolist()
        return dict(task.score(found, labels))

    usual = 2 * recipe.batch_examples
    metrics = scored(usual)

    def noise(metric: str) -> tuple[float, str]:
        return _relative(scored(OTHER_BATCH)[metric], metrics[metric]), f"batch {OTHER_BATCH} instead of {usual}"

    return Again(metrics=metrics, how="re-evaluated", counted=len(labels), noise=noise)
