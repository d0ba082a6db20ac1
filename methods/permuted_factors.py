"""Factors of permuted Kronecker layers: orders of rows and columns first, then the fit; in float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from methods.kronecker_factors import fitted_norms, matrix_factors
from methods.permutations import kronecker_permutations


def permuted_factors(weight: Tensor, spec: Mapping[str, Any], rounds: int = 2) -> dict[str, Tensor]:
    """W[rows][:, columns] ~ the nearest sum of K products, with `rows` and `columns` found before the fit.

    Rows are permuted within each split. Where the order found fits no better than the teacher's, that one stays.

    Args:
        rounds: of the search, as `permutations.kronecker_permutations` counts them.
    """
    splits, height, width = spec["splits"], *weight.shape
    unchanged = (list(torch.arange(height).chunk(splits)), torch.arange(width))
    most, best = -1.0, {}
    for rows, columns in (unchanged, _orders(weight, spec, rounds)):
        found = matrix_factors(weight[torch.cat(rows)][:, columns], spec)
        kept = float(fitted_norms(found).square().sum())
        if kept > most:
            most, best = kept, {**found, "rows": torch.cat(rows).int(), "columns": columns.int()}
    return best


def _orders(weight: Tensor, spec: Mapping[str, Any], rounds: int) -> tuple[list[Tensor], Tensor]:
    """Row order of each split, as rows of the stack, and the column order, which the splits share.

    With several splits the columns are found on the whole stack, as one matrix of S m1 rows of blocks; then the rows of
    each split, starting from those columns. Where B has one column, the order of the columns changes nothing.
    """
    (m1, n1), terms, splits = spec["left"], spec.get("terms", 1), spec["splits"]
    if splits == 1:
        rows, columns = kronecker_permutations(weight, m1, n1, terms, rounds=rounds)
        return [rows], columns
    columns = kronecker_permutations(weight, splits * m1, n1, terms, rounds=rounds)[1]
    parts = weight[:, columns].chunk(splits)
    found = [kronecker_permutations(part, m1, n1, terms, rounds=rounds)[0] for part in parts]
    height = weight.shape[0] // splits
    return [rows + s * height for s, rows in enumerate(found)], columns
