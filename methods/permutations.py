"""Row and column permutations that bring a matrix nearer to a sum of Kronecker products.

TQCompressor (arXiv 2401.16367) fits P W Q instead of W; how it finds P and Q is not published, and the search here is
our own. Shapes: the matrix is M x N and its rows are arranged in G groups of S slots, its columns in H groups of T
slots, so that W[rows][:, columns] is a (G S) x (H T) matrix whose block (g, h) is S x T; K terms, X moving rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from methods.truncated_svd import leading_directions

Array = NDArray[np.floating[Any]]
Index = NDArray[np.int64]

_MOVING = 512
"""Rows that are exchanged at a time at most: an assignment takes the cube of it."""
_REASSIGNED = 4096
"""Up to this many rows all of them are reassigned at once."""


class Arrangement(NamedTuple):
    """Which row and which column of the matrix stands in which slot of which group."""

    rows_GS: Index
    columns_HT: Index

    def of(self, matrix_MN: Array) -> Array:
        """The matrix in this order, G x S x H x T."""
        ordered = matrix_MN[self.rows_GS.reshape(-1)][:, self.columns_HT.reshape(-1)]
        return ordered.reshape(*self.rows_GS.shape, *self.columns_HT.shape)

    def transposed(self) -> Self:
        return self._replace(rows_GS=self.columns_HT, columns_HT=self.rows_GS)


def kronecker_permutations(
    weight: Tensor, m1: int, n1: int, terms: int = 1, *, rounds: int = 8
) -> tuple[Tensor, Tensor]:
    """Rows (m) and columns (n), int64, so that weight[rows][:, columns] is the matrix to fit by `nearest_kronecker`.

    The blocks of the matrix, as vectors, are projected on the best subspace of dimension `terms`; what they keep of the
    squared norm is what the fit keeps. In turn, rows and columns are exchanged so that more is kept, each time by an
    optimal assignment, and the subspace is fitted again. What is kept never falls, so that the result is at least as
    good as no permutation. A quarter of the rounds is spent on each of three starts, the rest on the best one: the
    matrix as it is, and two orders by norm, first improved for the magnitudes alone. Same input, same result.
    """
    m2, n2 = weight.shape[0] // m1, weight.shape[1] // n1
    assert (m1 * m2, n1 * n2) == tuple(weight.shape), f"{m1} x {n1} does not divide {tuple(weight.shape)}"
    assert 1 <= terms <= min(m1 * n1, m2 * n2), f"{terms} terms of {m1} x {n1} in {tuple(weight.shape)}"
    matrix_MN: Array = weight.detach().float().numpy()
    swapped = m1 * n1 < m2 * n2  # B (x) A is A (x) B in another order: let the larger factor number the groups
    groups = ((m2, m1), (n2, n1)) if swapped else ((m1, m2), (n1, n2))
    identity = Arrangement(*(_ordered(size, swapped) for size in groups))
    best = max(_starts(matrix_MN, identity, terms, max(1, rounds // 4)), key=lambda found: found[1])[0]
    rows_GS, columns_HT = _search(matrix_MN, best, terms, rounds - rounds // 4)[0]
    flat = (each.T if swapped else each for each in (rows_GS, columns_HT))
    rows, columns = (torch.from_numpy(np.ascontiguousarray(each).reshape(-1)) for each in flat)
    return rows, columns


def _ordered(size: tuple[int, int], swapped: bool) -> Index:
    """The places 0, 1, .. as they lie in groups (G x S)."""
    groups, slots = size
    places = np.arange(groups * slots)
    return places.reshape(slots, groups).T.copy() if swapped else places.reshape(groups, slots)


def _starts(matrix_MN: Array, identity: Arrangement, terms: int, rounds: int) -> Iterator[tuple[Arrangement, float]]:
    """Arrangements and what they keep: from the identity, then from orders by norm, which only magnitudes know."""
    yield _search(matrix_MN, identity, terms, rounds)
    magnitudes_MN = np.abs(matrix_MN)
    by_norm = [np.argsort(-np.linalg.norm(matrix_MN, axis=axis), kind="stable") for axis in (1, 0)]
    sizes = [each.shape for each in identity]
    spread = Arrangement(*(order.reshape(s, g).T for order, (g, s) in zip(by_norm, sizes, strict=True)))
    close = Arrangement(*(order.reshape(g, s) for order, (g, s) in zip(by_norm, sizes, strict=True)))
    for start in (spread, close):
        yield _search(matrix_MN, _search(magnitudes_MN, start, terms, rounds)[0], terms, rounds)


def _search(matrix_MN: Array, start: Arrangement, terms: int, rounds: int) -> tuple[Arrangement, float]:
    """The arrangement after at most `rounds` of improving, and the squared norm it keeps."""
    random = np.random.default_rng(0)
    views = matrix_MN, np.ascontiguousarray(matrix_MN.T)
    reassign = [True, True]
    best, kept = start, _fit(matrix_MN, start, terms)[1]
    for _ in range(rounds):
        found = best
        for axis, view in enumerate(views):
            if found.rows_GS.shape[1] > 1:  # else rows of A alone would be permuted
                before = found
                if reassign[axis]:
                    found = _reassigned(view, before, terms)
                    reassign[axis] = found is not before
                found = _exchanged(view, found, terms, random)
            found = found.transposed()
        now = _fit(matrix_MN, found, terms)[1]
        if now <= kept:
            break
        best, kept = found, now
    return best, kept


def _fit(matrix_MN: Array, at: Arrangement, terms: int) -> tuple[Array, float]:
    """The blocks' best subspace (S x T x K, orthonormal) and the squared norm it keeps, both from float64."""
    ordered_GSHT = at.of(matrix_MN)
    groups, slots, columns, width = ordered_GSHT.shape
    blocks = ordered_GSHT.transpose(1, 3, 0, 2).reshape(slots * width, groups * columns)
    basis, values = leading_directions(torch.from_numpy(blocks).double(), terms)
    return basis.astype(np.float32).reshape(slots, width, terms), float((values**2).sum())


def _reassigned(matrix_MN: Array, at: Arrangement, terms: int) -> Arrangement:
    """Every row to the place where the current approximation is nearest: the largest sum of inner products.

    This is what a small A needs; a large A follows each row too closely for it to leave. `at` itself when none moves.
    """
    rows = at.rows_GS.reshape(-1)
    if len(rows) > _REASSIGNED:
        return at
    basis_STK, ordered_GSHT = _fit(matrix_MN, at, terms)[0], at.of(matrix_MN)
    kept_GHK = np.einsum("gsht,stk->ghk", ordered_GSHT, basis_STK, optimize=True)
    fit_GSHT = np.einsum("ghk,stk->gsht", kept_GHK, basis_STK, optimize=True)
    place_M = _assigned(ordered_GSHT.reshape(len(rows), -1) @ fit_GSHT.reshape(len(rows), -1).T)
    if np.array_equal(place_M, np.arange(len(rows))):
        return at
    moved = np.empty_like(rows)
    moved[place_M] = rows
    return at._replace(rows_GS=moved.reshape(at.rows_GS.shape))


def _exchanged(matrix_MN: Array, at: Arrangement, terms: int, random: np.random.Generator) -> Arrangement:
    """Rows exchanged between groups, one random slot of each group at a time, as often as a group has slots.

    A group keeps |sum over its slots s of z_s|^2, where z_s (H K) is what row_s adds through the basis. With the other
    slots held, row x in slot s adds 2 z_s(x) . (the others' sum) + |z_s(x)|^2, A being fitted anew: assigning the
    moving rows to the groups by this gain is the best exchange there is.
    """
    basis_STK, ordered_GSHT = _fit(matrix_MN, at, terms)[0], at.of(matrix_MN)
    groups, slots, _, width = ordered_GSHT.shape
    added_GSZ = np.einsum("gsht,stk->gshk", ordered_GSHT, basis_STK, optimize=True).reshape(groups, slots, -1)
    rows_GS = at.rows_GS.copy()
    parts = -(-groups // _MOVING)
    for group_X in (part for _ in range(slots) for part in np.array_split(random.permutation(groups), parts)):
        slot_X = random.integers(slots, size=len(group_X))
        others_XZ = added_GSZ[group_X].sum(axis=1) - added_GSZ[group_X, slot_X]
        row_X = rows_GS[group_X, slot_X]
        moving = matrix_MN[row_X][:, at.columns_HT.reshape(-1)].reshape(-1, width)
        adding = {s: (moving @ basis_STK[s]).reshape(len(group_X), -1) for s in np.unique(slot_X)}
        gain_XX = np.empty((len(group_X),) * 2, dtype=np.float32)
        for s, z_XZ in adding.items():
            gain_XX[:, slot_X == s] = 2 * z_XZ @ others_XZ[slot_X == s].T + np.square(z_XZ).sum(axis=1)[:, None]
        place_X = _assigned(gain_XX)
        group_X, slot_X = group_X[place_X], slot_X[place_X]
        rows_GS[group_X, slot_X] = row_X
        for s, z_XZ in adding.items():
            added_GSZ[group_X[slot_X == s], s] = z_XZ[slot_X == s]
    return at._replace(rows_GS=rows_GS)


def _assigned(gain: Array) -> Index:
    """The column for each row that gives the largest sum; each its own where nothing is gained."""
    columns: Index = linear_sum_assignment(gain, maximize=True)[1]
    each = np.arange(len(gain))
    gained = (gain[each, columns].astype(np.float64) - gain.diagonal()).sum()
    return columns if gained > 0 else each
