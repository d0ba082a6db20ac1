"""Decomposing a matrix into a tensor train, and choosing the mode shapes for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.truncated_svd import leading_directions, projected


def tt_svd(weight: Tensor, out_modes: Sequence[int], in_modes: Sequence[int], ranks: Sequence[int]) -> list[Tensor]:
    """Cores G_k (r_{k-1} x m_k x n_k x r_k) in float64 of the TT-matrix nearest to `weight` core by core.

    W is folded to ((i1 j1), ..., (iN jN)); from the first mode on, each unfolding (r_{k-1} m_k n_k x the rest) is
    truncated to U S V^T: U is the core, S V^T goes on. The squared error is at most the sum of what each unfolding of W
    has to drop at its rank, so within a factor N - 1 of the least.  Oseledets, 2011, alg. 1. The cores are then scaled
    to equal norms, which leaves the product as it is.

    Where the modes' products exceed W's sides, W is padded with zero rows and columns at the end.
    """
    missing = [prod(modes) - size for modes, size in zip((in_modes, out_modes), reversed(weight.shape), strict=True)]
    assert min(missing) >= 0, f"modes {list(out_modes)}, {list(in_modes)} do not hold {tuple(weight.shape)}"
    length = len(out_modes)
    pairs = [axis for k in range(length) for axis in (k, length + k)]
    padded = F.pad(weight, (0, missing[0], 0, missing[1]))
    rest = padded.reshape(*out_modes, *in_modes).permute(pairs)
    factors = []
    for k in range(length - 1):
        left, rest = _split(rest.reshape(ranks[k] * out_modes[k] * in_modes[k], -1), ranks[k + 1])
        factors.append(left)
    factors.append(rest.double())
    norms = torch.stack([torch.linalg.vector_norm(each) for each in factors]).clamp_min(1e-300)
    scale = norms.log().mean().exp()
    shapes = zip(ranks[:-1], out_modes, in_modes, ranks[1:], strict=True)
    return [each.reshape(s) * (scale / norm) for each, s, norm in zip(factors, shapes, norms, strict=True)]


def _split(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """U_r and S_r V_r^T of the SVD, in float64."""
    if matrix.shape[0] <= matrix.shape[1]:
        basis = leading_directions(matrix, rank)[0]
        return torch.from_numpy(basis).double(), projected(basis, matrix)
    basis, values = leading_directions(matrix.T, rank)
    kept = torch.from_numpy(values)
    left = projected(basis, matrix.T).T / kept.clamp_min(torch.finfo(torch.float64).tiny)
    return left, kept[:, None] * torch.from_numpy(basis).double().T


def max_ranks(out_modes: Sequence[int], in_modes: Sequence[int]) -> list[int]:
    """r_0 .. r_N beyond which a tensor train of these modes gains nothing."""
    modes = [m * n for m, n in zip(out_modes, in_modes, strict=True)]
    return [min(prod(modes[:k]), prod(modes[k:])) for k in range(len(modes) + 1)]


@cache
def even_factors(number: int, length: int) -> tuple[int, ...]:
    """`number` as `length` factors, as equal as its prime factors allow, in ascending order.

    The factors with the smallest sum; 768 in 3 gives (8, 8, 12), 576 in 2 gives (24, 24).
    """
    if length == 1:
        return (number,)
    divisors = [d for d in range(1, number + 1) if number % d == 0 and d**length <= number]
    options = [(d, *rest) for d in divisors for rest in [even_factors(number // d, length - 1)] if rest[0] >= d]
    return min(options, key=sum)
