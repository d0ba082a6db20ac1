"""Splitting a weight into entries that stay, a low-rank term for what goes, and a few corrections."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from methods.truncated_svd import truncated_svd

_NOTHING = 1e-9
"""A singular value below this fraction of the weight's norm carries nothing."""
_START = 1e-3
"""Of a low-rank term with nothing to approximate: small beside what pruning changes, and not zero."""


def unstructured_split(weight_OI: Tensor, kept: int, rank: int, residual: int) -> dict[str, Tensor]:
    """The factors of `SparseLowRankLinear`, in float64.

    S1 keeps the `kept` largest magnitudes (the earlier entry on a tie), U V is the best approximation of what S1
    removes, W - S1 * W, and S2 holds the largest entries of W - S1 * W - U V.
    """
    weight = weight_OI.detach().double()
    where = torch.zeros(weight.numel(), dtype=torch.bool)
    where[_largest(weight, kept)] = True
    removed = weight.masked_fill(where.reshape(weight.shape), 0)
    left, right = low_rank_start(removed.to(weight_OI.dtype), weight, rank)
    rest = removed - left @ right
    places = _largest(rest, residual)
    return {
        "kept": weight.flatten()[where],
        "left": left,
        "right": right,
        "residual": rest.flatten()[places],
        "mask": torch.from_numpy(np.packbits(where.numpy())),
        "places": places.int(),
    }


def structured_split(weight_OI: Tensor, rows: Tensor, columns: Tensor, rank: int, residual: int) -> dict[str, Tensor]:
    """The factors of `StructuredLowRankLinear`, in float64.

    U V is the best approximation of the rows and columns removed, hence zero on those kept, where S2 starts at zero, at
    the largest magnitudes.
    """
    weight = weight_OI.detach().double()
    block = weight[rows][:, columns]
    removed = weight.clone()
    removed[rows[:, None], columns] = 0
    left, right = low_rank_start(removed.to(weight_OI.dtype), weight, rank)
    return {
        "kept": block,
        "left": left,
        "right": right,
        "residual": torch.zeros(residual, dtype=torch.float64),
        "places": _largest(block, residual).int(),
        "rows": rows.int(),
        "columns": columns.int(),
    }


def low_rank_start(removed: Tensor, weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """U (O x r) and V (r x I): the truncated SVD of `removed`, the singular values split evenly.

    Where `removed` is of a lower rank, there is nothing to start from, and a term of zero has no gradient in one of its
    factors: `_START` times the term of that number of `weight` is taken.
    """
    left, right = truncated_svd(removed, rank)
    values = torch.linalg.vector_norm(left, dim=0) * torch.linalg.vector_norm(right, dim=1)
    nothing = values <= _NOTHING * torch.linalg.vector_norm(weight)
    if nothing.any():
        columns, rows = truncated_svd(weight, rank)
        left, right = torch.where(nothing, _START * columns, left), torch.where(nothing[:, None], rows, right)
    return left, right


def _largest(values: Tensor, count: int) -> Tensor:
    """Flat positions of the `count` largest magnitudes, ascending; the earlier one on a tie."""
    sizes = values.flatten().abs().numpy()
    threshold = np.partition(sizes, -count)[-count]
    above = np.flatnonzero(sizes > threshold)
    ties = np.flatnonzero(sizes == threshold)[: count - len(above)]
    return torch.from_numpy(np.sort(np.concatenate([above, ties])))
