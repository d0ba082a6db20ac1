"""Checks of training: gradients reach what trains and nothing else, and the loss falls."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from methods import student as students
from methods.conformance.bench import Bench, Check, factorised

STEPS = 50


def gradients_reach_factors(bench: Bench) -> Iterator[str]:
    for sample in bench.samples:
        student, trained = sample.student, set(sample.plan.trained)
        _backward(bench, student)
        for name, parameter in student.named_parameters():
            if parameter.grad is not None and not parameter.grad.isfinite().all():
                yield f"{sample.at} the gradient of {name} is not finite"
        for path, layer in factorised(student):
            for name, parameter in layer.named_parameters():
                wanted = name in trained if trained else name != "bias"
                if wanted and (parameter.grad is None or not parameter.grad.any()):
                    yield f"{sample.at} no gradient reaches {path}.{name}; is it used, without detach or no_grad?"
        student.zero_grad()


def _backward(bench: Bench, student: torch.nn.Module) -> None:
    student.zero_grad()
    student(bench.tokens, labels=bench.tokens, use_cache=False).loss.backward()


def frozen_stays_frozen(bench: Bench) -> Iterator[str]:
    for sample in bench.samples:
        student, trained = sample.student, set(sample.plan.trained)
        if not trained:
            frozen = [name for name, each in student.named_parameters() if not each.requires_grad]
            if frozen:
                yield f"{sample.at} {frozen[0]} requires no gradient, but plan.trained is empty: name what trains there"
            continue
        there = {name.rpartition(".")[2] for name, _ in student.named_parameters()}
        for name in sorted(trained - there):
            yield f"{sample.at} plan.trained names {name!r}, which no parameter is called; there are {sorted(there)}"
        _backward(bench, student)
        for name, parameter in student.named_parameters():
            if name.rpartition(".")[2] not in trained and parameter.grad is not None:
                yield f"{sample.at} a gradient reaches {name}, which plan.trained does not name; freeze it"
        student.zero_grad()


def steps_lower_loss(bench: Bench) -> Iterator[str]:
    """Trains a loaded copy, so that the other checks see the student as compressed."""
    sample = bench.samples[0]
    with TemporaryDirectory() as folder:
        students.save(sample.student, Path(folder))
        trained = students.load(Path(folder))
    optimiser = torch.optim.AdamW([each for each in trained.parameters() if each.requires_grad], lr=1e-3)
    losses = []
    for _ in range(STEPS):
        loss = trained(bench.tokens, labels=bench.tokens, use_cache=False).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    if not losses[-1] < losses[0]:
        yield f"{sample.at} {STEPS} steps take the loss from {losses[0]:.3f} to {losses[-1]:.3f}"


CHECKS = (
    Check(title="gradients are finite and reach every factor", run=gradients_reach_factors),
    Check(title="what is frozen stays frozen", run=frozen_stays_frozen),
    Check(title="fifty steps lower the loss", run=steps_lower_loss, fast=False),
)
