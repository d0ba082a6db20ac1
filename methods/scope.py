"""Which matrices of the blocks a method may touch."""

from __future__ import annotations

from typing import Literal

from methods.families import Architecture, Matrix
from methods.interface import MethodError

Layers = Literal["all", "odd", "even"] | tuple[int, ...]
"""Blocks by number, counted from 0: `odd` are 1, 3, 5, ...; or a list of numbers."""
Matrices = Literal["all", "attention", "ffn"]

_ATTENTION = {"qkv", "q", "k", "v", "o"}


def select(dense: Architecture, layers: Layers, matrices: Matrices = "all") -> list[Matrix]:
    """The matrices in scope, in the model's order.

    Raises:
        MethodError: `layers` names a block that the model does not have.
    """
    if isinstance(layers, tuple) and (outside := [i for i in layers if not 0 <= i < len(dense.blocks)]):
        raise MethodError(f"layers: {outside[0]} is no block of this model; they go from 0 to {len(dense.blocks) - 1}")
    return [each for each in dense.matrices if in_layers(each, layers) and _in_part(each, matrices)]


def in_layers(matrix: Matrix, layers: Layers) -> bool:
    """True when the matrix is in a block that `layers` names."""
    if isinstance(layers, tuple):
        return matrix.block in layers
    return layers == "all" or matrix.block % 2 == (1 if layers == "odd" else 0)


def _in_part(matrix: Matrix, matrices: Matrices) -> bool:
    return matrices == "all" or (matrix.role in _ATTENTION) == (matrices == "attention")
