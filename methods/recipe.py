"""How a student is trained: everything that changes the result, nothing about where it runs."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)

_SUFFIXES = {"k": 10**3, "M": 10**6, "B": 10**9}


def parse_count(value: Any) -> Any:
    """Turn `600k`, `0.6M`, `10B` or 6e5 into an integer; leave anything else for pydantic to refuse."""
    if isinstance(value, str) and value[-1:] in _SUFFIXES:
        try:
            return round(float(value[:-1]) * _SUFFIXES[value[-1]])
        except ValueError:
            return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


Count = Annotated[int, BeforeValidator(parse_count, json_schema_input_type=int | float | str), Field(gt=0)]
"""A positive number of things, written `600000`, `6e5`, `600k` or `0.6M`."""


class Strict(BaseModel):
    """A frozen model that refuses unknown keys, coercions, NaN and infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Losses(Strict):
    """Weights of loss = ce * CE + kd * T^2 D(teacher, student) + taps * sum of the method's taps."""

    ce: float = Field(default=1.0, ge=0)
    kd: float = Field(default=0.0, ge=0)
    temperature: float = Field(default=2.0, gt=0)
    divergence: Literal["forward_kl", "reverse_kl", "jsd", "tvd"] = "forward_kl"
    """D: KL(teacher || student), KL(student || teacher), generalised Jensen-Shannon, or total variation."""
    jsd_beta: float = Field(default=0.5, gt=0, lt=1)
    """Weight of the teacher in Jensen-Shannon's mixture; read by `jsd` alone."""
    top_k: int | None = Field(default=None, gt=0)
    """Keep the teacher's so many likeliest tokens and the mass of all others as one; None keeps every token."""
    taps: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _used(self) -> Losses:
        given = [
            name
            for name in ("divergence", "jsd_beta", "top_k")
            if getattr(self, name) != type(self).model_fields[name].default
        ]
        if given and not self.kd:
            raise ValueError(f"{given[0]}: of no use without kd; give kd a weight")
        if "jsd_beta" in given and self.divergence != "jsd":
            raise ValueError("jsd_beta: of no use without `divergence: jsd`")
        return self

    @property
    def needs_teacher(self) -> bool:
        """True when any term compares with a teacher."""
        return self.kd > 0 or self.taps > 0


class Optimiser(Strict):
    """AdamW, its schedule and the numbers around it, all but the peak rate; the same fields for all that trains."""

    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    warmup_fraction: float = Field(default=0.05, ge=0, le=1)
    """Fraction of the steps over which the learning rate rises linearly from zero."""
    warmup_steps: int | None = Field(default=None, ge=0)
    """In place of the fraction: so many steps."""
    final_fraction: float = Field(default=0.1, ge=0, le=1)
    """Learning rate at the end of a linear or cosine schedule, as a fraction of `learning_rate`."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled; applied to matrices, not to biases and norms."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.999, ge=0, lt=1)
    epsilon: float = Field(default=1e-8, gt=0)
    gradient_clipping: float = Field(default=1.0, ge=0)
    """Global gradient norm; 0 turns clipping off."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    precision: Literal["fp32", "bf16"] = "fp32"
    deepspeed: dict[str, Any] = Field(default_factory=dict)
    """Raw DeepSpeed keys, merged last."""

    @model_validator(mode="after")
    def _one_warmup(self) -> Self:
        if self.warmup_steps is not None and "warmup_fraction" in self.model_fields_set:
            raise ValueError("give one of warmup_fraction, warmup_steps")
        return self

    @model_serializer(mode="wrap")
    def _what_applies(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What is not given, and the fraction where steps are, is no part of a recipe."""
        unused = "warmup_steps" if self.warmup_steps is None else "warmup_fraction"
        return {name: value for name, value in handler(self).items() if name != unused and value is not None}

    def warmup(self, steps: int) -> int:
        """How many of so many steps are warm-up."""
        return round(self.warmup_fraction * steps) if self.warmup_steps is None else self.warmup_steps


class Optimisation(Optimiser):
    """What the engine trains by: AdamW at one peak rate."""

    learning_rate: float = Field(gt=0)


def _ascending(rates: list[float]) -> list[float]:
    if len(set(rates)) != len(rates):
        raise ValueError("the same rate twice")
    return sorted(rates)


class Grid(Strict):
    """Peak rates to choose from, the smallest first."""

    grid: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=2), AfterValidator(_ascending)]


class RateGrid(Grid):
    """Peak rates of which each cell takes the best, found within its own budget.

    Each rate is tried for `trial_fraction` of the training, its schedule scaled to that; the loss on held-out training
    text decides. What the trials leave is the final training's.
    """

    trial_fraction: float = Field(default=0.1, gt=0, lt=1)

    @model_validator(mode="after")
    def _leaves_something(self) -> RateGrid:
        if len(self.grid) * self.trial_fraction >= 1:
            raise ValueError(
                f"{len(self.grid)} rates x trial_fraction {self.trial_fraction:g} leave nothing of the training"
            )
        return self


class FineTuneGrid(Grid):
    """Peak rates of which each student takes the best, for each task and seed anew, whatever that costs.

    Each rate is tried on the training rows without `held_out` of them, and the task's main metric on those decides. The
    training that counts is on all of them.
    """

    held_out: float = Field(default=0.1, gt=0, le=0.5)
    """Fraction of the training rows, and at least 100 of them."""
    trial_epochs: int | None = Field(default=None, gt=0)
    """None tries each rate for the epochs of the training."""


def _kind(value: Any) -> str:
    return "[grid]" if isinstance(value, dict | Grid) else "[rate]"


Rate = Annotated[float, Field(gt=0), Tag("[rate]")]
LearningRate = Annotated[Rate | Annotated[RateGrid, Tag("[grid]")], Discriminator(_kind)]
"""`1e-3`, or `{grid: [5e-4, 1e-3, 2e-3], trial_fraction: 0.1}`."""
FineTuneRate = Annotated[Rate | Annotated[FineTuneGrid, Tag("[grid]")], Discriminator(_kind)]
"""`5e-5`, or `{grid: [2e-5, 5e-5, 1e-4], held_out: 0.1}`."""


class Tunable(Optimiser):
    """An optimiser whose peak rate is one number, or is chosen from a grid."""

    learning_rate: float | Grid

    @property
    def rates(self) -> list[float]:
        """The rates to choose from, the smallest first; none where one is given."""
        return self.learning_rate.grid if isinstance(self.learning_rate, Grid) else []

    def optimisation(self, rate: float) -> Optimisation:
        """What the engine needs of it, at one peak rate."""
        fields = {name: value for name, value in self.model_dump().items() if name in Optimisation.model_fields}
        return Optimisation.model_validate_json(json.dumps(fields | {"learning_rate": rate}))


class Recipe(Tunable):
    """Language-model training on a budget of tokens or FLOPs: pretraining of a teacher or distillation of a student."""

    tokens: Count | None = None
    """Training tokens in all; the last step is the first that reaches it."""
    flops: float | None = Field(default=None, gt=0)
    """In place of tokens: FLOPs in all, the teacher's forward passes included, so that a cheaper student sees more."""
    batch_tokens: Count
    """Tokens per optimiser step over all workers (the global batch); a multiple of `sequence_length`."""
    sequence_length: int = Field(gt=0)
    learning_rate: LearningRate
    losses: Losses = Losses()

    @model_validator(mode="after")
    def _one_budget(self) -> Recipe:
        if (self.tokens is None) == (self.flops is None):
            given = "neither" if self.tokens is None else "both"
            raise ValueError(f"exactly one of tokens, flops is needed; given: {given}")
        return self

    @model_validator(mode="after")
    def _whole_windows(self) -> Recipe:
        if self.batch_tokens % self.sequence_length:
            near = max(1, round(self.batch_tokens / self.sequence_length)) * self.sequence_length
            raise ValueError(
                f"batch_tokens is not a multiple of sequence_length {self.sequence_length}; nearest: {near}"
            )
        return self

    @property
    def steps(self) -> int:
        """Optimiser steps of a budget in tokens: tokens / batch_tokens, rounded up."""
        assert self.tokens is not None, "how many steps FLOPs are depends on the models"
        return -(-self.tokens // self.batch_tokens)


class FineTune(Tunable):
    """Fine-tuning of a classification head and the model under it, for a fixed number of epochs."""

    learning_rate: FineTuneRate
    epochs: int = Field(default=3, gt=0)
    batch_examples: int = Field(default=32, gt=0)
    """Examples per optimiser step over all workers."""
    max_length: int = Field(default=128, gt=0)
    """Tokens per example; longer ones are cut."""
    losses: Losses = Losses()
    """With `kd` or `taps`, the teacher fine-tuned on the same task and seed is the teacher (KnGPT2's GLUE rows)."""
