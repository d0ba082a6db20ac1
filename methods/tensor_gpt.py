"""TensorGPT: each token's embedding as a tensor train."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from methods.families import Architecture, architecture
from methods.interface import Budget, Method, MethodError, Plan, Refusal, Statistics
from methods.layers.token_tensor_train import TokenTensorTrainEmbedding, token_params
from methods.planning import accept, student_size
from methods.tt_svd import even_factors, max_ranks

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel

CHUNK_ELEMENTS = 2**21
"""Entries of the embedding that are decomposed at once."""


@dataclass(frozen=True, kw_only=True)
class TensorGpt(Method):
    """Each embedding row, folded, as its own tensor train by TT-SVD, training-free.  TensorGPT, arXiv 2307.00526.

    x (D) becomes X (n_1 x .. x n_N) ~ G_1[j1] ... G_N[jN] with G_k (r_{k-1} x n_k x r_k), r_0 = r_N = 1: the sum of
    r_{k-1} n_k r_k numbers instead of D. Each token is decomposed by itself, so that new tokens can be added later. All
    tokens have the same ranks, min(R, what the modes allow); between R and R + 1 the bonds are raised one at a time,
    from the left, and of all these steps the one nearest to the budget is taken. A train that saves nothing gives way
    to the dense embedding. Nothing but the token embedding is touched; a tied output matrix follows it, an untied one
    stays dense.

    The paper's modes, ranks and order are not known: the most even factors of D in `cores` modes are taken. No
    published number was reproduced.
    """

    cores: int = 3
    """N, at least 2, where `modes` does not say it."""
    modes: tuple[int, ...] | None = None
    """n_1 .. n_N; a product above the width pads the rows with zeros. None: the most even factors of the width."""
    rank: int | None = None
    """R, the same at every bond as far as the modes allow; the size follows from it. None: solved for the budget."""

    def __post_init__(self) -> None:
        if self.cores < 2:
            raise MethodError(f"cores must be at least 2, not {self.cores}")
        if self.rank is not None and self.rank < 1:
            raise MethodError(f"rank must be at least 1, not {self.rank}")
        if self.modes is not None and (len(self.modes) < 2 or min(self.modes) < 1):
            raise MethodError(f"modes must be two or more numbers of at least 1, not {list(self.modes)}")

    def plan(self, teacher_config: PretrainedConfig, budget: Budget | None) -> Plan | Refusal:
        assert budget is not None or self.rank is not None, "tensor_gpt is budgeted unless its rank is given"
        dense = architecture(teacher_config)
        modes = self._modes(dense)
        steps = [ranks for ranks in _rank_steps(modes, self.rank) if token_params(modes, ranks) < dense.width]
        smallest = min((token_params(modes, ranks) for ranks in steps), default=dense.width)
        plans = [_plan(dense, modes, ranks) for ranks in steps]
        if self.rank is None or not plans:
            plans.append(Plan(size=dense.num_params))
        target = plans[-1].size if budget is None else budget.target(dense.num_params)
        share = dense.vocab * dense.width / dense.num_params
        keeps = f"keeps {smallest}" if self.rank else f"keeps at least {smallest}"
        reason = f"the embedding is {share:.1%} of the model, and a train of modes {list(modes)} {keeps} of its "
        reason += f"{dense.width} numbers per token"
        return accept(budget, min(plans, key=lambda plan: abs(plan.size - target)), dense.num_params, reason)

    def _modes(self, dense: Architecture) -> tuple[int, ...]:
        modes = self.modes or even_factors(dense.width, self.cores)
        if prod(modes) < dense.width:
            raise MethodError(f"modes: {list(modes)} multiply to {prod(modes)}, less than the width {dense.width}")
        return modes

    def compress(self, teacher: PreTrainedModel, plan: Plan, *, seed: int, statistics: Statistics) -> PreTrainedModel:
        from methods.student import from_teacher

        return from_teacher(teacher, plan, _factors)


def _plan(dense: Architecture, modes: Sequence[int], ranks: Sequence[int]) -> Plan:
    spec = {"type": TokenTensorTrainEmbedding.kind, "modes": list(modes), "ranks": list(ranks)}
    surgery = {dense.embedding: spec}
    return Plan(size=student_size(dense, surgery), surgery=surgery)


def _rank_steps(modes: Sequence[int], rank: int | None) -> Iterator[list[int]]:
    """r_0 .. r_N, from all ones to the largest useful ones, a bond at a time; of `rank` alone when it is given."""
    most = max_ranks(modes, [1] * len(modes))
    if rank is not None:
        yield [min(rank, each) for each in most]
        return
    ranks = [1] * len(most)
    yield list(ranks)
    for level in range(2, max(most) + 1):
        for bond in (k for k, each in enumerate(most) if each >= level):
            ranks[bond] = level
            yield list(ranks)


def _factors(path: str, weight: Tensor, spec: Mapping[str, Any]) -> dict[str, Tensor]:
    return {f"core_{k}": core for k, core in enumerate(token_cores(weight, spec["modes"], spec["ranks"]))}


def token_cores(weight_VD: Tensor, modes: Sequence[int], ranks: Sequence[int]) -> list[Tensor]:
    """Cores G_k (V x r_{k-1} x n_k x r_k) of each row of `weight_VD`, in its precision, computed in float64.

    TT-SVD (Oseledets, 2011, alg. 1) for many rows at once: with C_0 the row, the unfolding of C_{k-1} to
    (r_{k-1} n_k x rest) is truncated to U S V^T of rank r_k; G_k is U, C_k is S V^T, and the last core what is left.
    A row's cores are then scaled to equal norms, which leaves their product as it is.
    """
    import torch

    chunks = torch.split(weight_VD, max(1, CHUNK_ELEMENTS // prod(modes)))
    parts = [[core.to(weight_VD.dtype) for core in _chunk_cores(chunk, modes, ranks)] for chunk in chunks]
    return [torch.cat(cores) for cores in zip(*parts, strict=True)]


def _chunk_cores(weight_VD: Tensor, modes: Sequence[int], ranks: Sequence[int]) -> list[Tensor]:
    import torch
    from torch.nn import functional as F

    rows = len(weight_VD)
    rest = F.pad(weight_VD.double(), (0, prod(modes) - weight_VD.shape[1]))
    cores = []
    for left, mode, right in zip(ranks[:-2], modes[:-1], ranks[1:-1], strict=True):
        u, s, vt = torch.linalg.svd(rest.reshape(rows, left * mode, -1), full_matrices=False)
        cores.append(u[..., :right].reshape(rows, left, mode, right))
        rest = s[:, :right, None] * vt[:, :right]
    cores.append(rest.reshape(rows, ranks[-2], modes[-1], 1))
    norms = torch.stack([torch.linalg.vector_norm(core.flatten(1), dim=1) for core in cores])
    scale = norms.log().mean(0).exp()
    factors = torch.where(norms.prod(0) > 0, scale / norms, 1.0)  # a row of zeros stays as the SVD leaves it
    return [core * factor[:, None, None, None] for core, factor in zip(cores, factors, strict=True)]
