"""Factors of Kronecker layers from a dense weight, by name as the layers hold them; in float64.

Shapes as in `methods.layers.kronecker`: S stacked splits, K terms, A (m1 x n1), B (m2 x n2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from methods.interface import MethodError
from methods.nearest_kronecker import nearest_kronecker

PRUNING_WEIGHT = 0.1
"""B's entry for the rows that A leaves out; not 0, so that it learns."""


def embedding_factors(weight: Tensor, factors: Sequence[int]) -> dict[str, Tensor]:
    """W (v x d) ~ A (x) B_0 (x) B_1 .., split one factor at a time: the last one off W, the next off what is left.

    Each step is the nearest Kronecker product, so that two factors of 2 are TQCompressor's "2x, then its large factor
    2x again"; one factor is KnGPT2's.
    """
    left, rights = weight, {}
    for j in reversed(range(len(factors))):
        left_KMN, right_KMN = nearest_kronecker(left, left.shape[0], left.shape[1] // factors[j])
        left, rights[f"right_{j}"] = left_KMN[0], right_KMN[0]
    return {"left": left, **rights}


def matrix_factors(weight: Tensor, spec: Mapping[str, Any]) -> dict[str, Tensor]:
    """The nearest sum of K Kronecker products to each split of W, scales at 1 where the layer has them."""
    (m1, n1), terms = spec["left"], spec.get("terms", 1)
    fits = [nearest_kronecker(split, m1, n1, terms) for split in weight.chunk(spec["splits"])]
    return _stacked(fits, spec)


def pruning_factors(weight: Tensor, spec: Mapping[str, Any]) -> dict[str, Tensor]:
    """Krony-PT's pruning start: A = every second row of W and B = [1, 0.1]^T (2 x 1), W being out x in.

    Where B lies along the columns (1 x 2), A is every second column and B = [1, 0.1].

    Raises:
        MethodError: B has more or fewer than 2 entries.
    """
    (m1, n1), splits = spec["left"], spec["splits"]
    m2, n2 = weight.shape[0] // splits // m1, weight.shape[1] // n1
    if m2 * n2 != 2:
        raise MethodError(f"initialisation: pruning needs a B of 2 entries, shapes {[m1, n1]} leaves {m2} x {n2}")
    right = torch.tensor([1.0, PRUNING_WEIGHT], dtype=torch.float64).reshape(1, m2, n2)
    fits = [(split.double()[None, ::m2, ::n2], right) for split in weight.chunk(splits)]
    return _stacked(fits, spec)


def _stacked(fits: Sequence[tuple[Tensor, Tensor]], spec: Mapping[str, Any]) -> dict[str, Tensor]:
    factors = {"left": torch.stack([left for left, _ in fits]), "right": torch.stack([right for _, right in fits])}
    if spec.get("scaled", False):
        factors["scales"] = torch.ones(factors["left"].shape[:2], dtype=torch.float64)
    return factors


def normalised(factors: Mapping[str, Tensor], weight: Tensor) -> dict[str, Tensor]:
    """The same factors with every scale of a split at alpha = ||W||_F / ||W_hat||_F, W_hat being the fit without it.

    The plain fit keeps only a part of the norm; the scaled one keeps all of it. Krony-PT's adaptive normalisation.
    """
    fitted, terms = fitted_norms(factors), factors["left"].shape[1]
    norms = torch.linalg.vector_norm(weight.double().reshape(len(fitted), -1), dim=1)
    alpha = torch.where(fitted > 0, norms / fitted, 1.0)
    return {**factors, "scales": alpha[:, None].repeat(1, terms)}


def fitted_norms(factors: Mapping[str, Tensor]) -> Tensor:
    """||sum_k A_k (x) B_k||_F of each split (S): <A_k (x) B_k, A_l (x) B_l> = <A_k, A_l> <B_k, B_l>."""
    left, right = factors["left"].double(), factors["right"].double()
    gram_A = torch.einsum("skij,slij->skl", left, left)
    gram_B = torch.einsum("skij,slij->skl", right, right)
    return (gram_A * gram_B).sum(dim=(1, 2)).clamp(min=0).sqrt()
