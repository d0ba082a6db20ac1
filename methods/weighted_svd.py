"""Low-rank factors that minimise a weighted error: by a scale per row and column, or by the outputs on data.

Shapes: W (out x in), L (out x r), R (r x in), H (in x in). Everything is float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from methods.truncated_svd import truncated_svd

_FLOOR = 1e-6
"""Scales below this fraction of the largest, and zeros, count as this fraction: their rows or columns are still fitted
within the subspace that the others choose."""
_RIDGE = 1e-6
"""What is added to an H that is not positive definite, beyond what makes its smallest eigenvalue 0."""


def scaled_svd(
    weight: Tensor, rank: int, *, rows: Tensor | None = None, columns: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """L (out x r), R (r x in), minimising the Frobenius norm of D_r (W - L R) D_c for diagonal scales of at least 0.

    SVD of D_r W D_c = U S V^T; L = D_r^-1 U_r sqrt(S_r), R = sqrt(S_r) V_r^T D_c^-1. FWSVD (arXiv 2207.00112) has as
    `rows` the root of the Fisher information's row sums, ASVD (2312.05821) as `columns` the activations' scales. A
    common factor of the scales changes nothing.
    """
    rows_O1 = _positive(rows, weight.shape[0])[:, None]
    columns_I = _positive(columns, weight.shape[1])
    left_OR, right_RI = truncated_svd(rows_O1 * weight.double() * columns_I, rank)
    return left_OR / rows_O1, right_RI / columns_I


def whitened_svd(weight: Tensor, rank: int, gram: Tensor) -> tuple[Tensor, Tensor]:
    """L (out x r), R (r x in), minimising ||(W - L R) X||_F over inputs X with H = X X^T.  SVD-LLM, arXiv 2403.07378.

    H = C C^T, so that the error is ||(W - L R) C||_F; W C = U S V^T; L = U_r sqrt(S_r), R = sqrt(S_r) V_r^T C^-1.
    """
    root_II = whitening(gram)
    left_OR, whitened_RI = truncated_svd(weight.double() @ root_II, rank)
    return left_OR, torch.linalg.solve_triangular(root_II, whitened_RI, upper=False, left=False)


def whitened_values(weight: Tensor, gram: Tensor) -> Tensor:
    """The singular values of W C, descending: `whitened_svd` at rank r has the squared error sum of s_i^2, i > r."""
    whitened_OI = weight.double() @ whitening(gram)
    wide = whitened_OI if weight.shape[0] <= weight.shape[1] else whitened_OI.T
    squares: Tensor = torch.linalg.eigvalsh(wide @ wide.T)
    return squares.clamp_min(0.0).sqrt().flip(0)


def whitening(gram: Tensor) -> Tensor:
    """C, lower triangular, with C C^T = H; of H + (1e-6 - lambda_min) I where H is not positive definite.

    SVD-LLM's 1e-6 is absolute; here it is relative to the mean of H's diagonal where that is above 1, since H grows
    with the number of tokens and rounding with it.
    """
    gram = gram.double()
    root_II: Tensor
    root_II, failed = torch.linalg.cholesky_ex(gram)
    if not failed:
        return root_II
    shift = _RIDGE * max(1.0, float(gram.diagonal().mean())) - float(torch.linalg.eigvalsh(gram)[0])
    root_II = torch.linalg.cholesky(gram + shift * torch.eye(len(gram), dtype=torch.float64))
    return root_II


def _positive(scales: Tensor | None, length: int) -> Tensor:
    """The scales relative to the largest, floored; ones where there are none or all are 0."""
    if scales is None or not scales.any():
        return torch.ones(length, dtype=torch.float64)
    assert scales.shape == (length,), f"{tuple(scales.shape)} scales for {length}"
    assert bool((scales >= 0).all()), "scales are at least 0"
    return (scales.double() / scales.max().double()).clamp_min(_FLOOR)
