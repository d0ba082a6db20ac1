"""The best approximation of a matrix by one Kronecker product."""

from __future__ import annotations

import torch
from torch import Tensor

from methods.truncated_svd import largest_sign

_GRAM_SIDE = 64
"""Up to this length of the short side an eigendecomposition of the Gram matrix beats an iterative solver."""


def nearest_kronecker(weight: Tensor, m1: int, n1: int) -> tuple[Tensor, Tensor]:
    """A (m1 x n1), B (m2 x n2) in float64, minimising the Frobenius norm of weight - A (x) B.

    Rearranges W[(i1 i2),(j1 j2)] into R[(i1 j1),(i2 j2)]; with the leading triple (s, u, v) of R, vec(A) = sqrt(s) u
    and vec(B) = sqrt(s) v.  Van Loan & Pitsianis, 1993. Same input, same bits.
    """
    m2, n2 = weight.shape[0] // m1, weight.shape[1] // n1
    assert (m1 * m2, n1 * n2) == tuple(weight.shape), f"{m1} x {n1} does not divide {tuple(weight.shape)}"
    r_AB = weight.double().reshape(m1, m2, n1, n2).permute(0, 2, 1, 3).reshape(m1 * n1, m2 * n2)
    tall = r_AB.shape[0] >= r_AB.shape[1]
    v = _leading_direction(r_AB if tall else r_AB.T)
    u = (r_AB if tall else r_AB.T) @ v
    root = torch.linalg.vector_norm(u).sqrt()
    long, short = u / root.clamp_min(torch.finfo(torch.float64).tiny), v * root
    a, b = (long, short) if tall else (short, long)
    return a.reshape(m1, n1), b.reshape(m2, n2)


def _leading_direction(tall: Tensor) -> Tensor:
    """The right singular vector of the largest singular value, its largest entry positive."""
    if tall.shape[1] <= _GRAM_SIDE:
        v: Tensor = torch.linalg.eigh(tall.T @ tall).eigenvectors[:, -1]
    else:
        from scipy.sparse.linalg import svds

        v = torch.from_numpy(svds(tall.numpy(), k=1, rng=0, return_singular_vectors="vh")[2][0].copy())
    fixed: Tensor = v * largest_sign(v[:, None])
    return fixed
