"""The best approximation of a matrix by one of lower rank, several times faster than a full decomposition.

Shapes: M x N a matrix, S x L the same or its transpose with S <= L, R the rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

Array = NDArray[np.floating[Any]]

_BLOCK = 1 << 19
"""Entries converted and multiplied at a time, so that they stay in the processor's cache."""
_SINGLE = 1 << 16
"""A float32 matrix with as many entries is tried in float32 first."""
_FEW_ROWS = 4
"""Up to so many rows their inner products are faster one by one than as a matrix product."""
_TRUST = 1e4
"""Directions found at precision eps are kept when the mean dropped eigenvalue of the Gram matrix is above
_TRUST * eps of the largest. An error E of the Gram matrix mixes directions i and j by E_ij / gap_ij, which adds
E_ij^2 / gap_ij to the squared error: second order, about 1e-7 of the error at this limit."""


def truncated_svd(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """L (m x r), R (r x n) in float64, minimising the Frobenius norm of weight - L R.  Eckart & Young, 1936.

    W = U S V^T; L = U_r sqrt(S_r), R = sqrt(S_r) V_r^T. Same input, same bits.
    """
    wide = weight.shape[0] <= weight.shape[1]
    matrix_SL = weight if wide else weight.T
    basis_SR, values_R = leading_directions(matrix_SL, rank)
    # Only how the product is shared between the factors depends on the root, so that a floor costs no accuracy.
    floor = max(1e-8 * values_R[0], np.finfo(np.float64).tiny)
    root_R = np.sqrt(np.maximum(values_R, floor))
    short_SR = torch.from_numpy(basis_SR * root_R)
    long_RL = projected(basis_SR / root_R.astype(basis_SR.dtype), matrix_SL)
    return (short_SR, long_RL) if wide else (long_RL.T, short_SR.T)


def leading_directions(matrix_SL: Tensor, rank: int) -> tuple[Array, Array]:
    """The left singular vectors (S x R) and values (R, float64) of the largest values, descending, S <= L.

    They are eigenvectors of the Gram matrix: by ARPACK where few are wanted, else by a dense decomposition; in float32
    where that is precise enough by `_TRUST`, else in float64, and by a full SVD where nothing is left to drop. The
    vectors' type says which precision it was; the largest entry of each is positive.
    """
    side, length = matrix_SL.shape
    assert 1 <= rank <= side <= length, f"rank {rank} of {side} x {length}"
    matrix_SL = matrix_SL.detach()
    few = side * (1 + 4 * side / length) > 220 + 20 * rank  # measured: here ARPACK overtakes the Gram matrix
    single = matrix_SL.dtype != torch.float64 and matrix_SL.numel() >= _SINGLE and rank < side
    for dtype in (torch.float32, torch.float64) if single else (torch.float64,):
        energy, vectors, squares = (_iterated if few else _dense)(matrix_SL, rank, dtype)
        dropped, limit = energy - squares.sum(), _TRUST * torch.finfo(dtype).eps * squares[0]
        if rank == side or dropped > limit * (side - rank):
            return vectors * _largest_sign(vectors), np.sqrt(np.maximum(squares, 0.0))
    triangle_SS = torch.linalg.qr(matrix_SL.T.double(), mode="r").R.T
    basis_SS, values_S, _ = torch.linalg.svd(triangle_SS)
    vectors = basis_SS[:, :rank].numpy()
    return vectors * _largest_sign(vectors), values_S[:rank].numpy()


def projected(basis_SR: Array, matrix_SL: Tensor) -> Tensor:
    """basis^T matrix (R x L) in float64, multiplied in the precision of the basis."""
    basis_RS = torch.from_numpy(basis_SR.T.copy())
    out_RL = torch.from_numpy(np.empty((len(basis_RS), matrix_SL.shape[1])))  # numpy asks for huge pages
    end = 0
    for block_SL in _blocks(matrix_SL, basis_RS.dtype):
        start, end = end, end + block_SL.shape[1]
        out_RL[:, start:end] = basis_RS @ block_SL
    return out_RL


def _blocks(matrix_SL: Tensor, dtype: torch.dtype) -> Iterator[Tensor]:
    """The columns, a few at a time."""
    for block in torch.split(matrix_SL.detach(), max(1, _BLOCK // matrix_SL.shape[0]), dim=1):
        yield block.to(dtype)


def _dense(matrix_SL: Tensor, rank: int, dtype: torch.dtype) -> tuple[float, Array, Array]:
    """The Gram matrix' trace, its leading eigenvectors (S x R) and eigenvalues, descending."""
    gram_SS = _gram(matrix_SL, dtype)
    squares_S, vectors_SS = torch.linalg.eigh(torch.from_numpy(gram_SS).to(dtype))
    squares_R, vectors_SR = squares_S[-rank:].flip(0).double(), vectors_SS[:, -rank:].flip(1)
    return float(gram_SS.trace()), vectors_SR.numpy(), squares_R.numpy()


def _gram(matrix_SL: Tensor, dtype: torch.dtype) -> Array:
    """The rows' inner products, summed in float64."""
    side = matrix_SL.shape[0]
    if side > _FEW_ROWS:
        total_SS = torch.zeros(side, side, dtype=torch.float64)
        for block_SL in _blocks(matrix_SL, dtype):
            total_SS += block_SL @ block_SL.T
        return total_SS.numpy()
    gram_SS = np.zeros((side, side))
    rows = matrix_SL.to(dtype)
    for i in range(side):
        for j in range(i + 1):
            gram_SS[i, j] = gram_SS[j, i] = float(torch.dot(rows[i], rows[j]))
    return gram_SS


def _iterated(matrix_SL: Tensor, rank: int, dtype: torch.dtype) -> tuple[float, Array, Array]:
    """The same by ARPACK's restarted Lanczos iteration from a fixed start, without forming the Gram matrix."""
    energy = sum(float(torch.linalg.vector_norm(block)) ** 2 for block in _blocks(matrix_SL, dtype))
    matrix: Array = matrix_SL.to(dtype).numpy()
    side = matrix.shape[0]
    if energy == 0:
        return energy, np.eye(side, rank), np.zeros(rank)
    operator = LinearOperator((side, side), matvec=lambda x: matrix @ (matrix.T @ x), dtype=matrix.dtype)
    start = np.random.default_rng(0).standard_normal((side,)).astype(matrix.dtype)
    squares_R, vectors_SR = eigsh(operator, rank, v0=start, tol=10 * torch.finfo(dtype).eps)
    return energy, vectors_SR[:, ::-1], squares_R[::-1].astype(np.float64)


def _largest_sign(vectors_SR: Array) -> Array:
    """The sign of each vector's entry of largest magnitude: fixes what an eigenvector leaves open."""
    entries_R = np.take_along_axis(vectors_SR, np.abs(vectors_SR).argmax(axis=0)[None], axis=0)[0]
    return np.where(entries_R < 0, -1, 1).astype(vectors_SR.dtype)
