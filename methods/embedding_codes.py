"""Codes for the rows of an embedding, and the tables that fit it best given the codes.

Shapes: V rows, D columns, t codes per row, c values per code.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from methods.truncated_svd import truncated_svd

Array = NDArray[np.float64]

_COLUMNS = 32
"""Columns of the embedding that are fitted at a time: bounds the memory, and is faster."""
_PRECISION = 1e-6
"""The fit ends when each column's gradient has fallen by this factor."""
_MOST_STEPS = 300


def quantile_codes(weight_VD: Tensor, codes: int, values: int) -> Tensor:
    """Integers in 0 .. values - 1 (V x t): the bin of each row in each of the leading singular directions.

    W = U S V^T; in column j of U_t the rows are sorted (by number on a tie) and cut into `values` bins that differ by
    one row at most. Scaling or normalising a column changes no bin. The sign of a direction is fixed.
    """
    left_VJ, _ = truncated_svd(weight_VD, codes)
    ranks_VJ = left_VJ.argsort(dim=0, stable=True).argsort(dim=0)
    return ranks_VJ * values // len(weight_VD)


def fit_tables(weight_VD: Tensor, codes_VJ: Tensor, values: int) -> Tensor:
    """Tables (t x c x D, float64) that minimise the Frobenius norm of W[v] - sum over j of tables[j, codes[v, j]].

    The least-squares problem is W ~ A X with A (V x t c) of zeros and t ones per row. It has many solutions (a vector
    may move from one table to another); conjugate gradients from zero converge to the one of the smallest norm.
    """
    rows, codes = codes_VJ.shape
    at = (codes_VJ + values * torch.arange(codes)).numpy()
    chosen = csr_array((np.ones(at.size), at.ravel(), np.arange(0, at.size + 1, codes)), shape=(rows, codes * values))
    chunks = torch.split(weight_VD.detach(), _COLUMNS, dim=1)
    tables = np.concatenate([_least_squares(chosen, each.double().contiguous().numpy()) for each in chunks], axis=1)
    return torch.from_numpy(tables).reshape(codes, values, -1)


def _least_squares(matrix: Any, wanted: Array) -> Array:
    """X that minimises ||matrix X - wanted||, each column by itself.  CGLS, Hestenes & Stiefel, 1952."""
    transposed = matrix.T.tocsr()
    residual, found = wanted.copy(), np.zeros((matrix.shape[1], wanted.shape[1]))
    gradient = transposed @ residual
    direction, square = gradient, np.square(gradient).sum(0)
    enough = _PRECISION**2 * square
    for _ in range(_MOST_STEPS):
        if (square <= enough).all():
            break
        step_image = matrix @ direction
        length = np.square(step_image).sum(0)
        step = np.divide(square, length, out=np.zeros_like(square), where=(length > 0) & (square > enough))
        found += step * direction
        residual -= step * step_image
        gradient = transposed @ residual
        before, square = square, np.square(gradient).sum(0)
        direction = gradient + np.divide(square, before, out=np.zeros_like(square), where=before > 0) * direction
    return found
