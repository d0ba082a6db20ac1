"""Tensor-train matrices in place of the blocks' matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from methods.families import Architecture, Matrix, Role, architecture
from methods.interface import Budget, Method, MethodError, Plan, Preset, Refusal, Statistics
from methods.layers.tensor_train import TensorTrainLinear
from methods.planning import accept, student_size, uniform_ranks
from methods.recipe import Losses, Recipe
from methods.scope import Layers, Matrices, select
from methods.tensor_train_modes import Train, fast_modes
from methods.tt_svd import max_ranks

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel

Modes = Mapping[Role, Mapping[Literal["out", "in"], tuple[int, ...]]]

MOST = 0.65
"""A train holds at most this fraction of its matrix' entries, else it stays dense, where the budget can be met so:
three products near the dense size are slower than the dense product (`tests/bench/bench_layers.py`)."""
_STEPS = 256
"""Sizes that are tried between the smallest train and the dense matrix."""


@dataclass(frozen=True, kw_only=True)
class TensorTrain(Method):
    """TT matrix: W[(i1..iN),(j1..jN)] ~ G_1[i1,j1] ... G_N[iN,jN], by TT-SVD.  Oseledets, 2011; arXiv 2306.02697.

    G_k is r_{k-1} x m_k x n_k x r_k with r_0 = r_N = 1. Every matrix in scope keeps the same fraction of its entries,
    solved for the budget; biases, norms and embeddings stay. Modes and ranks are those of `fast_modes`, unless `modes`
    or `rank` is given: then every inner rank is min(R, what the modes allow), with one R per matrix.

    2306.02697 trains a whole model from scratch with random cores in the FFN, one R for all of them, and no teacher:
    `initialisation: random` with `matrices: ffn` and `rank`. The default starts from the teacher's weights instead. The
    paper's modes are not known, the preset's are inferred from its parameter count; nor is how it draws its cores. No
    published number was reproduced.
    """

    presets: ClassVar[Mapping[str, Preset]] = {
        "ttm-80": Preset(
            fields={
                "matrices": "ffn",
                "rank": 80,
                "modes": {
                    "up": {"out": (12, 16, 16), "in": (3, 16, 16)},
                    "down": {"out": (3, 16, 16), "in": (12, 16, 16)},
                },
                "initialisation": "random",
            },
            counts={"unique": 107_698_944},
            source="2306.02697, experiments/GPT_small_lm of its repository; modes inferred from the count",
        )
    }

    layers: Layers = "all"
    """Blocks in scope, counted from 0."""
    matrices: Matrices = "all"
    """Matrices in scope within a block; 2306.02697 takes `ffn`."""
    cores: int = 3
    """N, at least 2, where `modes` does not say it."""
    modes: Modes | None = None
    """m_1 .. m_N (`out`) and n_1 .. n_N (`in`) by role; other roles keep the modes of `fast_modes`. A product above the
    dimension pads it with zeros: the input is padded, the output cut."""
    rank: int | None = None
    """R for all matrices in scope; the size follows from it. None: solved for the budget."""
    initialisation: Literal["svd", "random"] = "svd"
    """`svd` fits the teacher's weights. `random` keeps nothing of the teacher: matrices and cores are drawn so that
    every entry of every (materialised) weight has the configuration's `initializer_range` as standard deviation, biases
    are 0, norms 1. With `rank`, random cores have it at every bond, also where the modes allow less (2306.02697)."""
    preset: Literal["ttm-80"] | None = None
    """`ttm-80`: GPT-2 small with R = 80; `rank` may be set besides, the paper also has 64, 32 and 16."""

    def __post_init__(self) -> None:
        if self.cores < 2:
            raise MethodError(f"cores must be at least 2, not {self.cores}")
        if self.rank is not None and self.rank < 1:
            raise MethodError(f"rank must be at least 1, not {self.rank}")
        for role, modes in (self.modes or {}).items():
            _check_modes(role, modes)

    @property
    def stochastic(self) -> bool:
        return self.initialisation == "random"

    @property
    def exact_at_full(self) -> bool:
        return self.initialisation == "svd" and self.rank is None

    @property
    def keeps_weights(self) -> bool:
        return self.initialisation == "svd"

    def plan(self, teacher_config: PretrainedConfig, budget: Budget | None) -> Plan | Refusal:
        assert budget is not None or self.rank is not None, "tensor_train is budgeted unless its rank is given"
        dense = architecture(teacher_config)
        scope = select(dense, self.layers, self.matrices)
        if self.rank is not None:
            plan = _planned(dense, scope, [self._train(each, self.rank) for each in scope])
            return accept(budget, plan, dense.num_params, f"{len(scope)} matrices are in scope, at rank {self.rank}")
        assert budget is not None
        entries = budget.target(dense.num_params) - (dense.num_params - sum(each.size for each in scope))
        for most in (MOST, 1.0):
            steps = uniform_ranks(scope, entries, self._size, most=most)
            trains = [None if k is None else self._step(each, k) for each, k in zip(scope, steps, strict=True)]
            plan = _planned(dense, scope, trains)
            if budget.met_by(plan.size, dense.num_params):
                break
        return accept(budget, plan, dense.num_params, f"{len(scope)} matrices are in scope, at ranks of 1 or more")

    def _size(self, matrix: Matrix, step: int) -> int:
        """Parameters at a step; beyond the largest useful one, as many as keep the size increasing."""
        if self.modes is None:
            trains = _fast_trains(matrix.out_features, matrix.in_features, self.cores)
            return trains[step - 1].num_params if step <= len(trains) else matrix.size + step
        beyond = max(0, step - max(max_ranks(*self._modes(matrix))))
        return self._train(matrix, step).num_params + beyond * matrix.size

    def _step(self, matrix: Matrix, step: int) -> Train:
        """The train number `step`, counted from 1: R where modes are given, else one of `_fast_trains`."""
        if self.modes is None:
            return _fast_trains(matrix.out_features, matrix.in_features, self.cores)[step - 1]
        return self._train(matrix, step)

    def _train(self, matrix: Matrix, rank: int) -> Train:
        out_modes, in_modes = self._modes(matrix)
        most = max_ranks(out_modes, in_modes)
        if self.rank is not None and self.initialisation == "random":
            most = [1, *[rank] * (len(most) - 2), 1]
        return Train(out_modes, in_modes, tuple(min(rank, each) for each in most))

    def _modes(self, matrix: Matrix) -> tuple[tuple[int, ...], tuple[int, ...]]:
        given = (self.modes or {}).get(matrix.role)
        if given is None:
            chosen = _fast_trains(matrix.out_features, matrix.in_features, self.cores)[0]
            return chosen.out_modes, chosen.in_modes
        out_modes, in_modes = given["out"], given["in"]
        for side, modes, features in (("out", out_modes, matrix.out_features), ("in", in_modes, matrix.in_features)):
            if (product := prod(modes)) < features:
                where = f"{matrix.role}.{side}: {list(modes)}"
                raise MethodError(f"modes: {where} multiply to {product}, less than the dimension {features}")
        return tuple(out_modes), tuple(in_modes)

    def compress(self, teacher: PreTrainedModel, plan: Plan, *, seed: int, statistics: Statistics) -> PreTrainedModel:
        from methods.student import from_teacher

        return _from_scratch(teacher, plan, seed) if self.stochastic else from_teacher(teacher, plan, _factors)

    def recipe(self) -> Recipe:
        """GPT-2 small on WikiText-103: 40 epochs of blocks of 512, batch 2 x 8 accumulated, warm-up of 4,000 steps.

        Reported by the scripts of the paper's repository. The epoch is taken as 118M GPT-2 tokens; the decay of the
        schedule is not known, linear to zero is taken.
        """
        return Recipe(
            tokens=40 * 118_000_000,
            batch_tokens=2 * 8 * 512,
            sequence_length=512,
            learning_rate=6.25e-5,
            schedule="linear",
            warmup_fraction=4000 / (40 * 118_000_000 / (2 * 8 * 512)),
            final_fraction=0.0,
            weight_decay=1e-4,
            losses=Losses(ce=1.0),
        )


def _planned(dense: Architecture, scope: Sequence[Matrix], trains: Sequence[Train | None]) -> Plan:
    surgery = {each.path: _spec(train) for each, train in zip(scope, trains, strict=True) if train is not None}
    return Plan(size=student_size(dense, surgery), surgery=surgery)


def _check_modes(role: str, modes: Mapping[Literal["out", "in"], tuple[int, ...]]) -> None:
    if set(modes) != {"out", "in"}:
        raise MethodError(f"modes: {role} needs `out` and `in`, not {sorted(modes)}")
    if len(modes["out"]) != len(modes["in"]) or len(modes["out"]) < 2:
        raise MethodError(f"modes: {role} needs as many numbers in `out` as in `in`, and at least 2")
    if min(*modes["out"], *modes["in"]) < 1:
        raise MethodError(f"modes: {role} has a mode below 1")


@cache
def _fast_trains(out_features: int, in_features: int, cores: int) -> tuple[Train, ...]:
    """Trains by `fast_modes` of increasing size, all smaller than the dense matrix."""
    dense = out_features * in_features
    trains: list[Train] = []
    for step in range(1, _STEPS + 1):
        train = fast_modes(out_features, in_features, cores, dense * step // _STEPS)
        if train and train.num_params < dense and (not trains or train.num_params > trains[-1].num_params):
            trains.append(train)
    return tuple(trains)


def _spec(train: Train) -> dict[str, Any]:
    modes = {"out_modes": list(train.out_modes), "in_modes": list(train.in_modes)}
    return {"type": TensorTrainLinear.kind, **modes, "ranks": list(train.ranks)}


def _factors(path: str, weight: Tensor, spec: Mapping[str, Any]) -> dict[str, Tensor]:
    from methods.tt_svd import tt_svd

    cores = tt_svd(weight, spec["out_modes"], spec["in_modes"], spec["ranks"])
    return {f"core_{k}": core for k, core in enumerate(cores)}


def _from_scratch(teacher: PreTrainedModel, plan: Plan, seed: int) -> PreTrainedModel:
    """A student of which every parameter is new: what is not a core is normal (matrices), 0 (biases) or 1 (norms)."""
    import torch

    from methods.student import from_teacher

    generator = torch.Generator().manual_seed(seed)
    std = teacher.config.initializer_range

    def cores(path: str, weight: Tensor, spec: Mapping[str, Any]) -> dict[str, Tensor]:
        return random_cores(spec, std, generator)

    student = from_teacher(teacher, plan, cores)
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            owner, _, last = name.rpartition(".")
            if last == "bias":
                parameter.zero_()
            elif owner not in plan.surgery and parameter.dim() == 1:
                parameter.fill_(1.0)
            elif owner not in plan.surgery:
                parameter.copy_(std * torch.randn(parameter.shape, generator=generator))
    return student


def random_cores(spec: Mapping[str, Any], std: float, generator: torch.Generator) -> dict[str, Tensor]:
    """Cores with independent normal entries such that every entry of W has standard deviation `std`.

    An entry of W sums r_1 .. r_{N-1} products of N core entries, which are uncorrelated: its variance is that many
    times s^(2N) at standard deviation s of the cores, so that s = std^(1/N) (r_1 .. r_{N-1})^(-1/(2N)).
    """
    import torch

    ranks, length = spec["ranks"], len(spec["out_modes"])
    scale = std ** (1 / length) * prod(ranks) ** (-1 / (2 * length))
    shapes = zip(ranks[:-1], spec["out_modes"], spec["in_modes"], ranks[1:], strict=True)
    return {f"core_{k}": scale * torch.randn(shape, generator=generator) for k, shape in enumerate(shapes)}
