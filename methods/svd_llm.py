"""Singular value decomposition of the whitened matrix, optimal for the matrix' outputs (SVD-LLM)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import e, log
from typing import TYPE_CHECKING, Literal

from methods.families import Matrix, architecture, weight_OI
from methods.interface import Plan, Statistic, Statistics
from methods.low_rank import LowRank, of_matrix, size

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

_MOST = 0.9
"""Fraction of a matrix' entries that `ratios="loss"` gives to two factors at most; above the uniform ratios' limit, so
that there is room to redistribute."""


@dataclass(frozen=True, kw_only=True)
class SvdLlm(LowRank):
    """SVD-LLM: truncate in the coordinates in which the inputs are white.  Wang et al., arXiv 2403.07378.

    H = sum x x^T over the calibration tokens = C C^T (Cholesky, float64). The truncated SVD W C ~ U S V^T gives
    L = U sqrt(S) and R = sqrt(S) V^T C^-1. They minimise ||(W - L R) X||_F, and the squared minimum is the sum of the
    dropped S^2: no other factors of that rank change the outputs on the calibration text less.

    Deviations: the paper's two rounds of LoRA are left to the sweep's recipe. `ratios="loss"` follows SVD-LLM V2
    (arXiv 2503.12340) as it is paraphrased second-hand, see `loss_driven_ranks`; V2's eigendecomposition of H in the
    place of Cholesky gives the same product L R and is not needed.
    """

    ratios: Literal["uniform", "loss"] = "uniform"
    """How a role's share is spread over the blocks: the same fraction each, or by the loss of truncation."""

    @property
    def needs(self) -> frozenset[Statistic]:
        return frozenset({"gram"})

    def factors(self, weight: Tensor, rank: int, measured: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        from methods.weighted_svd import whitened_svd

        return whitened_svd(weight, rank, measured["gram"])

    def refine(self, teacher: PreTrainedModel, plan: Plan, statistics: Statistics) -> Plan:
        """With `ratios="loss"`, other ranks of the same sum within each role, so of the same size."""
        if self.ratios == "uniform":
            return plan
        scope = [each for each in architecture(teacher.config).matrices if each.path in plan.surgery]
        ranks: dict[str, int] = {}
        for _, group in groupby(sorted(scope, key=_group), key=_group):
            members = list(group)
            uniform = [int(plan.surgery[each.path]["rank"]) for each in members]
            losses = [_loss(teacher, each, rank, statistics) for each, rank in zip(members, uniform, strict=True)]
            found = loss_driven_ranks(members[0], uniform, losses)
            ranks |= zip((each.path for each in members), found, strict=True)
        surgery = {path: {**spec, "rank": ranks[path]} for path, spec in plan.surgery.items()}
        return replace(plan, surgery=surgery)


def loss_driven_ranks(matrix: Matrix, uniform: Sequence[int], losses: Sequence[float]) -> list[int]:
    """Ranks of the same sum as `uniform` for matrices of one shape: what is removed of each goes as 1 / log(loss).

    SVD-LLM V2 groups matrices by their type. Of a group of n with the fraction p removed in all, matrix i loses
    n p w_i / sum(w), w_i = 1 / log(loss_i), with the loss at the uniform rank. A logarithm below 1 counts as 1. No
    matrix keeps less than rank 1 or more than `_MOST`; what these bounds forbid, the others of the group take.
    """
    whole = matrix.size / size(matrix, 1)  # the rank at which two factors are as large as the matrix
    ceiling = max(int(_MOST * whole), *uniform)
    weights = [1 / log(max(loss, e)) for loss in losses]

    def at(level: float) -> list[float]:
        return [min(max(whole - level * weight, 1.0), ceiling) for weight in weights]

    low, high = 0.0, whole / min(weights)
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (low, middle) if sum(at(middle)) <= sum(uniform) else (middle, high)
    ranks = [int(rank) for rank in at(high)]
    remainders = sorted(range(len(ranks)), key=lambda i: ranks[i] - at(high)[i])
    for i in remainders[: sum(uniform) - sum(ranks)]:
        ranks[i] += 1
    return ranks


def _loss(teacher: PreTrainedModel, matrix: Matrix, rank: int, statistics: Statistics) -> float:
    """Squared error of the outputs on the calibration text, ||(W - L R) X||_F^2, at this rank."""
    from methods.weighted_svd import whitened_values

    weight = weight_OI(teacher.get_submodule(matrix.path)).detach()
    values = whitened_values(weight, of_matrix(statistics, matrix)["gram"])
    return float(values[rank:].square().sum())


def _group(matrix: Matrix) -> tuple[str, int, int]:
    return matrix.role, matrix.out_features, matrix.in_features
