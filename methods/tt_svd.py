"""Decomposing a matrix into a tensor train, and choosing the mode shapes for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import prod

import torch
from torch import Tensor


def tt_svd(weight: Tensor, out_modes: Sequence[int], in_modes: Sequence[int], ranks: Sequence[int]) -> list[Tensor]:
    """Cores G_k (r_{k-1} x m_k x n_k x r_k) in float64 of the TT-matrix nearest to `weight` core by core.

    W is folded to ((i1 j1), ..., (iN jN)); each unfolding in turn is truncated by an SVD.  Oseledets, 2011, alg. 1,
    through tensorly. The cores are then scaled to equal norms, which leaves the product as it is.
    """
    import tensorly
    from tensorly.decomposition import tensor_train

    length = len(out_modes)
    pairs = [axis for k in range(length) for axis in (k, length + k)]
    modes = [m * n for m, n in zip(out_modes, in_modes, strict=True)]
    folded = weight.double().reshape(*out_modes, *in_modes).permute(pairs).reshape(modes)
    with tensorly.backend_context("numpy", local_threadsafe=True):
        factors = [torch.from_numpy(each.copy()) for each in tensor_train(folded.numpy(), list(ranks)).factors]
    norms = torch.stack([torch.linalg.vector_norm(each) for each in factors]).clamp_min(1e-300)
    scale = norms.log().mean().exp()
    shapes = zip(ranks[:-1], out_modes, in_modes, ranks[1:], strict=True)
    return [each.reshape(s) * (scale / norm) for each, s, norm in zip(factors, shapes, norms, strict=True)]


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
