"""The best approximation of a matrix by a sum of Kronecker products."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from methods.truncated_svd import truncated_svd


def nearest_kronecker(weight: Tensor, m1: int, n1: int, terms: int = 1) -> tuple[Tensor, Tensor]:
    """A (k x m1 x n1), B (k x m2 x n2) in float64, minimising the Frobenius norm of weight - sum_i A_i (x) B_i.

    Rearranges W[(i1 i2),(j1 j2)] into R[(i1 j1),(i2 j2)], so that each product becomes the rank-one matrix
    vec(A_i) vec(B_i)^T; with the i-th triple (s, u, v) of R, vec(A_i) = sqrt(s) u and vec(B_i) = sqrt(s) v, and the
    error is sqrt(sum of the dropped s^2).  Van Loan & Pitsianis, 1993. Same input, same bits.
    """
    m2, n2 = weight.shape[0] // m1, weight.shape[1] // n1
    assert (m1 * m2, n1 * n2) == tuple(weight.shape), f"{m1} x {n1} does not divide {tuple(weight.shape)}"
    assert 1 <= terms <= min(m1 * n1, m2 * n2), f"{terms} terms of {m1} x {n1} in {tuple(weight.shape)}"
    folded = weight.reshape(m1, m2, n1, n2)
    if m1 * n1 < m2 * n2:
        left_AK, right_KB = truncated_svd(_copied(folded.permute(0, 2, 1, 3)).reshape(m1 * n1, m2 * n2), terms)
    else:  # the transpose, which is the quicker one to copy
        right_BK, left_KA = truncated_svd(_copied(folded.permute(1, 3, 0, 2)).reshape(m2 * n2, m1 * n1), terms)
        left_AK, right_KB = left_KA.T, right_BK.T
    return left_AK.T.reshape(terms, m1, n1).contiguous(), right_KB.reshape(terms, m2, n2).contiguous()


def _copied(view: Tensor) -> Tensor:
    """A contiguous copy, in memory of numpy's, which asks for huge pages."""
    kind = np.float64 if view.dtype == torch.float64 else np.float32
    return torch.from_numpy(np.empty(tuple(view.shape), kind)).copy_(view.detach())
