"""Mode shapes and ranks of tensor trains that are no slower than their number of entries says."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import cache
from math import ceil, isqrt, log, prod
from typing import NamedTuple

from methods.layers.tensor_train import core_macs, core_params
from methods.tt_svd import even_factors

_UNEVEN = 1.25
"""A dimension is padded until the mean of its modes is at most this multiple of their geometric mean."""
_LOPSIDED = 0.02
"""Fraction of the allowed entries left unspent for ranks that keep e times as much on one side as on the other."""


class Train(NamedTuple):
    """Shapes of a tensor train: `out_modes` and `in_modes` of N, `ranks` r_0 .. r_N."""

    out_modes: tuple[int, ...]
    in_modes: tuple[int, ...]
    ranks: tuple[int, ...]

    @property
    def num_params(self) -> int:
        return core_params(*self)

    @property
    def macs_per_token(self) -> int:
        return core_macs(*self)


def fast_modes(out_features: int, in_features: int, cores: int, entries: int) -> Train | None:
    """A tensor train of `cores` cores (at least 2) with at most `entries` entries; None when even ranks of 1 take more.

    Where each core has an output and an input mode (8 x 8, 8 x 8, 12 x 12 for 768 x 768), core by core and rebuilding
    the weight both cost many times the dense product at any rank that keeps a large part of the entries: a core costs
    its entries times the other modes that a token holds when it is applied. So here one core alone, the middle one, has
    two modes larger than 1. It is the large product, and is applied when a token holds nothing else. The cores on its
    left split the output (a_1, .., b, 1, ..), those on its right the input (1, .., c, .., d_1), and shrink A = prod a
    to r_left and D = prod d to r_right. With three cores,

        W[(i1 i2), (j1 j2)] = sum over p, q of G_1[i1, p] G_2[p, i2, j1, q] G_3[q, j2],  out = a b, in = c d,
        entries = a r_1 + r_1 b c r_2 + r_2 d,
        multiply-adds = r_2 in + (r_2 c)(r_1 b) + r_1 out = entries + at most (a + d) out in / min(out, in),

    three matrix products without a copy, at widths from 576 at most 0.07 of the dense product more than the entries
    say. Left of the middle are (cores - 1) // 2 cores; two cores split the input alone.

    Among these, the most balanced: modes are the most even factors of each dimension, smallest outside and the largest
    in the middle, so that 768 x 3072 in three gives (24, 32, 1) and (1, 64, 48). Two cores take a larger outer mode,
    for ranks in finer steps: twice the root of the input or 64, or the next factor. A dimension without even factors is
    padded to the next number that has them. Ranks are those that spend the most entries while both sides keep about the
    same fraction of their modes, r_left / A = r_right / D.
    """
    left, right = (cores - 1) // 2, cores - 1 - (cores - 1) // 2
    rows, columns = even_modes(out_features, left + 1), even_modes(in_features, right + 1)
    if not left:
        columns = _finer(prod(columns))
    out_modes, in_modes = (*rows, *(1,) * right), (*(1,) * left, *reversed(columns))
    outputs, inputs = prod(rows[:-1]), prod(columns[:-1])

    def train(left_rank: int, right_rank: int) -> Train:
        before, after = _bonds(left_rank, rows[:-1]), _bonds(right_rank, columns[:-1])
        return Train(out_modes, in_modes, (1, *before, *reversed(after), 1))

    def most(left_rank: int) -> int:
        """The largest rank on the right that the entries allow; 0 when none."""
        return bisect_right(range(1, inputs + 1), entries, key=lambda rank: train(left_rank, rank).num_params)

    best: Train | None = None
    score = float("-inf")
    for left_rank in range(1, outputs + 1):
        if right_rank := most(left_rank):
            candidate = train(left_rank, right_rank)
            lopsided = abs(log(left_rank / outputs) - log(right_rank / inputs)) if left else 0.0
            value = candidate.num_params / entries - _LOPSIDED * lopsided
            if value > score:
                best, score = candidate, value
    return best


def _bonds(rank: int, modes: Sequence[int]) -> list[int]:
    """Ranks from the outermost core of a side to the middle, where it is `rank`; each core keeps the same fraction."""
    kept = rank / prod(modes)
    outer = [ceil(prod(modes[:k]) * kept ** (k / len(modes))) for k in range(1, len(modes))]
    return [*outer, rank] if modes else []


def _finer(number: int) -> tuple[int, int]:
    least = min(64, 2 * isqrt(number), number)
    outer = next(factor for factor in range(least, number + 1) if number % factor == 0)
    return outer, number // outer


@cache
def even_modes(number: int, length: int) -> tuple[int, ...]:
    """The most even `length` factors of the smallest number of at least `number` that has even ones, ascending."""
    for padded in range(number, 2 * number + 2**length):
        modes = even_factors(padded, length)
        if sum(modes) <= _UNEVEN * length * padded ** (1 / length):
            return modes
    raise AssertionError("a power of two is among them")
