"""The speed card: latency at batch 1, throughput, memory, load time and energy, factorised and materialised."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from harness.provenance import hardware
from harness.speed import energy
from harness.speed.figures import form_speed, speed_noise
from harness.speed.generation import Round, Workload, generate, workloads
from harness.speed.resident import Peak
from harness.stage import Context
from methods import student
from methods.interface import MethodError
from results.speed_card import SpeedCard, SpeedSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BATCH = 16
PREFILLS = 4
"""Passes over the prompt in a round at batch 1."""
WARM_UP_ROUNDS = 1


@dataclass(frozen=True, kw_only=True)
class Box:
    """How often to repeat: until `seconds` have passed, but within bounds."""

    seconds: float
    fewest: int
    most: int

    def open(self, done: int, seconds: float) -> bool:
        """True when there is to be another one after `done` of them in so many seconds."""
        return done < self.fewest or (done < self.most and seconds < self.seconds)


LATENCY = Box(seconds=2, fewest=4, most=100)
"""Rounds at batch 1; the seconds are those of both forms."""
THROUGHPUT = Box(seconds=1, fewest=3, most=10)
LOADS = Box(seconds=3, fewest=1, most=3)


@dataclass(frozen=True, kw_only=True)
class Form:
    """A model on its device, warmed up by a round of either workload."""

    model: PreTrainedModel
    load_s: float
    peak_memory_bytes: int | None


def run(context: Context) -> Mapping[str, Any]:
    """Measure the student as it is and as a dense model, in rounds that alternate, so that drift hits both alike.

    The student takes two turns in each round, as if it were two models: what these differ by is the noise.
    """
    device = "cuda" if context.execution.gpus else "cpu"
    source = context.inputs["model"] / "model"
    single, batched = _workloads(source, device)
    forms = {"factorised": _ready(source, device, single, batched)}
    if dense := _materialised(forms["factorised"].model, device, single, batched):
        forms["materialised"] = dense
    meter = energy.meter(device)
    latency = _alternate(forms, lambda model: generate(model, single, meter), LATENCY)
    throughput = _alternate(forms, lambda model: generate(model, batched), THROUGHPUT)
    speeds = {
        name: form_speed(
            latency[name], throughput[name], batched, load_s=form.load_s, peak_memory_bytes=form.peak_memory_bytes
        )
        for name, form in forms.items()
    }
    settings = SpeedSettings(
        device=torch.cuda.get_device_name() if device == "cuda" else "cpu",
        threads=torch.get_num_threads(),
        dtype=str(forms["factorised"].model.dtype).removeprefix("torch."),
        prompt_tokens=batched.prompt_tokens,
        generated_tokens=single.generated_tokens,
        batch=BATCH,
        warm_up_rounds=WARM_UP_ROUNDS,
        latency_rounds=len(latency["factorised"]),
        throughput_rounds=len(throughput["factorised"]),
        energy_source=meter.source if meter else None,
    )
    noise = speed_noise(latency["factorised"], throughput["factorised"])
    return SpeedCard(hardware=hardware(), noise=noise, settings=settings, **speeds).model_dump()


def _workloads(source: Path, device: str) -> tuple[Workload, Workload]:
    """Those of latency and of throughput; a round of each lets the libraries take what they keep for good."""
    model = student.load(source).eval().to(device)
    found = workloads(model, BATCH, PREFILLS)
    for work in found:
        generate(model, work)
    return found


def _ready(directory: Path, device: str, *works: Workload) -> Form:
    """Load it several times, for the median, and see what its warm-up takes."""
    peak = Peak(device)
    times: list[float] = []
    model: PreTrainedModel | None = None
    while LOADS.open(len(times), sum(times)):
        model = None  # the one before goes first
        started = time.perf_counter()
        model = student.load(directory).eval().to(device)
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    assert model is not None
    peak.restart()
    for work in works:
        generate(model, work)
    return Form(model=model, load_s=median(times), peak_memory_bytes=peak.bytes())


def _materialised(model: PreTrainedModel, device: str, *works: Workload) -> Form | None:
    """The dense equivalent, saved and loaded as any model; None when a layer has none."""
    with TemporaryDirectory() as scratch:
        try:
            student.save(student.materialise(model), Path(scratch))
        except MethodError:
            return None
        return _ready(Path(scratch), device, *works)


def _alternate(forms: Mapping[str, Form], once: Callable[[PreTrainedModel], Round], box: Box) -> dict[str, list[Round]]:
    """The rounds of each form; a form's order in a turn rotates, and the factorised one comes twice in each."""
    rounds: dict[str, list[Round]] = {name: [] for name in forms}
    turn = [*forms, "factorised"]
    started, done = time.perf_counter(), 0
    while box.open(done, time.perf_counter() - started):
        for place in range(len(turn)):
            name = turn[(done + place) % len(turn)]
            rounds[name].append(once(forms[name].model))
        done += 1
    return rounds
