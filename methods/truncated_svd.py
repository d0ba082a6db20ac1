"""The best approximation of a matrix by one of lower rank, several times faster than a full decomposition."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

_BLOCK = 1 << 19
"""Entries that are held in float64 at a time."""
_SINGLE_SIDE = 256
"""Above this length of the short side the directions are first sought in float32."""
_TRUST = 1e4
"""Directions found at precision eps are kept when the mean dropped eigenvalue of the Gram matrix is above
_TRUST * eps of the largest. Perturbing the Gram matrix by E mixes directions i and j by E_ij / gap_ij, which adds
E_ij^2 / gap_ij to the squared error: second order, a relative 1e-7 of the error at this limit."""


def truncated_svd(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """L (m x r), R (r x n) in float64, minimising the Frobenius norm of weight - L R.  Eckart & Young, 1936.

    W = U S V^T; L = U_r sqrt(S_r), R = sqrt(S_r) V_r^T. Same input, same bits.
    """
    left_MR, values_R, right_RN = leading_triples(weight, rank)
    root = values_R.sqrt()
    return left_MR.mul_(root), right_RN.mul_(root[:, None])


def leading_triples(weight: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """U_r (m x r), S_r (r), V_r^T (r x n) in float64, descending, the largest entry of the short side's vectors positive.

    The short side's vectors B are eigenvectors of the Gram matrix W W^T (W wide): from ARPACK where few are wanted,
    else from a dense eigendecomposition; the long side's are the rows of B^T W in float64, scaled to length 1 (or 0
    where the singular value is 0), so that a full rank is exact. They are sought at the lowest precision that is good
    enough, see `_TRUST`; a matrix that is of the rank asked for up to rounding is left to a full SVD.
    """
    side, length = sorted(weight.shape)
    assert 1 <= rank <= side, f"rank {rank} of a matrix {tuple(weight.shape)}"
    wide_SL = weight.detach() if weight.shape[0] == side else weight.detach().T
    precisions = [torch.float32, torch.float64] if side > _SINGLE_SIDE and rank < side else [torch.float64]
    few = side * (1 + 4 * side / length) > 220 + 20 * rank  # measured: where ARPACK overtakes the Gram matrix
    gram = None if few else _gram(wide_SL)
    energy = sum(float(block.square().sum()) for block in _blocks(wide_SL))
    for dtype in precisions if energy else []:
        basis_SR = _iterated(wide_SL, rank, dtype) if gram is None else _dense(gram, rank, dtype)
        projected_RL = torch.cat([basis_SR.T @ block for block in _blocks(wide_SL)], dim=1)
        values_R = torch.linalg.vector_norm(projected_RL, dim=1)
        dropped = energy - float(values_R.square().sum())
        limit = _TRUST * torch.finfo(dtype).eps * float(values_R[0]) ** 2
        if rank == side or dropped > limit * (side - rank):
            projected_RL /= values_R.clamp_min(torch.finfo(torch.float64).tiny)[:, None]
            break
    else:
        basis, values, rows = torch.linalg.svd(wide_SL.double(), full_matrices=False)
        sign = largest_sign(basis[:, :rank])
        basis_SR, values_R, projected_RL = basis[:, :rank] * sign, values[:rank], rows[:rank] * sign[:, None]
    if wide_SL.shape == weight.shape:
        return basis_SR, values_R, projected_RL
    return projected_RL.T, values_R, basis_SR.T


def largest_sign(columns: Tensor) -> Tensor:
    """The sign of each column's entry of largest magnitude: fixes what an eigenvector leaves open."""
    at = columns.abs().argmax(dim=0, keepdim=True)
    return torch.where(columns.gather(0, at)[0] < 0, -1.0, 1.0).to(columns.dtype)


def _blocks(wide_SL: Tensor) -> Iterator[Tensor]:
    """The columns, a few at a time, in float64."""
    for block in wide_SL.split(max(1, _BLOCK // wide_SL.shape[0]), dim=1):
        yield block.double()


def _gram(wide_SL: Tensor) -> Tensor:
    """W W^T in float64; numpy computes one triangle where torch computes both."""
    total_SS = np.zeros((wide_SL.shape[0],) * 2)
    for block in _blocks(wide_SL):
        total_SS += block.numpy() @ block.numpy().T
    return torch.from_numpy(total_SS)


def _dense(gram_SS: Tensor, rank: int, dtype: torch.dtype) -> Tensor:
    """The leading eigenvectors, descending, from all of them."""
    return _orthonormal(torch.linalg.eigh(gram_SS.to(dtype)).eigenvectors[:, -rank:].flip(1))


def _iterated(wide_SL: Tensor, rank: int, dtype: torch.dtype) -> Tensor:
    """The same without the Gram matrix, by ARPACK's restarted Lanczos iteration from a fixed start."""
    matrix: NDArray[np.floating] = wide_SL.to(dtype).numpy()
    side = matrix.shape[0]
    operator = LinearOperator((side, side), matvec=lambda x: matrix @ (matrix.T @ x), dtype=matrix.dtype)
    start = np.random.default_rng(0).standard_normal(side).astype(matrix.dtype)
    vectors = eigsh(operator, rank, v0=start, tol=10 * np.finfo(matrix.dtype).eps)[1]
    return _orthonormal(torch.from_numpy(vectors[:, ::-1].copy()))


def _orthonormal(basis_SR: Tensor) -> Tensor:
    """Vectors that are orthonormal to single precision, so to double (one Newton-Schulz step), and of fixed sign."""
    basis_SR = basis_SR.double()
    basis_SR = 1.5 * basis_SR - 0.5 * basis_SR @ (basis_SR.T @ basis_SR)
    return basis_SR * largest_sign(basis_SR)
