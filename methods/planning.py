"""Arithmetic shared by plans: sizes of students, and ranks that spend a budget evenly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from methods.families import Architecture, Matrix
from methods.interface import Budget, Plan, Refusal, Rule
from methods.layers.factorised import count


def student_size(dense: Architecture, surgery: Mapping[str, Mapping[str, Any]], *, untied: bool = False) -> int:
    """Unique parameters of the student: the dense model's, minus the weights replaced, plus their factors.

    Args:
        untied: the student has an output matrix of its own, which the dense model ties to the embedding.
    """
    whole = dense.num_params + (dense.vocab * dense.width if untied and dense.tied else 0)
    shapes = {each.path: (each.out_features, each.in_features) for each in dense.matrices}
    shapes[dense.embedding] = (dense.vocab, dense.width)
    replaced = [(spec, *shapes[path]) for path, spec in surgery.items()]
    return whole - sum(rows * columns - count(spec, rows, columns) for spec, rows, columns in replaced)


def counted(dense: Architecture, plan: Plan, rule: Rule) -> int:
    """The student's parameters as a paper counts them.

    `unique`: each once, a tied matrix once. `without_output_matrix`: an untied output matrix left out (KnGPT2,
    TQCompressor). `scales_folded`: a learned scalar per Kronecker term folded into its factor (Krony-PT).
    """
    if rule == "without_output_matrix":
        tied = plan.config_changes.get("tie_word_embeddings", dense.tied)
        return plan.size - (0 if tied else dense.vocab * dense.width)
    if rule == "scales_folded":
        scaled = [spec for spec in plan.surgery.values() if spec.get("scaled")]
        return plan.size - sum(int(spec.get("splits", 1) * spec.get("terms", 1)) for spec in scaled)
    return plan.size


def dense_macs(dense: Architecture) -> int:
    """Multiply-adds per token of all products with weights, the output matrix included, embedding look-up not."""
    return dense.vocab * dense.width + sum(each.size for each in dense.matrices)


def accept(
    budget: Budget | None, plan: Plan, teacher_size: int, refusal: str, *, size: int | None = None
) -> Plan | Refusal:
    """`plan` when it meets the budget or there is none, else a refusal that names its size as the nearest one.

    Args:
        teacher_size: in the budget's unit.
        size: the student's in the budget's unit, where that is not parameters.
    """
    reached = plan.size if size is None else size
    if budget is None or budget.met_by(reached, teacher_size):
        return plan
    return Refusal(reason=refusal, nearest=reached / teacher_size)


def uniform_ranks(
    matrices: Sequence[Matrix], entries: int, size: Callable[[Matrix, int], int], *, most: float = 1.0
) -> list[int | None]:
    """One rank per matrix such that each keeps the same fraction of its entries and all together at most `entries`.

    The common fraction is found by bisection; what rounding leaves is spent by raising ranks by one, in order. None
    keeps a matrix dense: all of them when `entries` covers them; else, with every other matrix at `most`, those that
    what is left pays for, from the last to the first.

    Args:
        size: parameters of a factorisation of the matrix at a rank of at least 1; increasing in the rank.
        most: no factorisation of a rank above 1 keeps more than this fraction of its matrix.
    """
    if entries >= sum(each.size for each in matrices):
        return [None] * len(matrices)
    kinds = {(each.out_features, each.in_features): each for each in matrices}

    def at(keep: float) -> list[int]:
        ranks = {shape: _largest_rank(each, keep, size) for shape, each in kinds.items()}
        return [ranks[each.out_features, each.in_features] for each in matrices]

    def spent(ranks: Sequence[int]) -> int:
        return sum(size(each, rank) for each, rank in zip(matrices, ranks, strict=True))

    low, high = 0.0, most
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if spent(at(middle)) <= entries else (low, middle)
    return _spend_rest(matrices, at(low), entries - spent(at(low)), size, most)


def _largest_rank(matrix: Matrix, keep: float, size: Callable[[Matrix, int], int]) -> int:
    """The largest rank of at least 1 whose size is at most `keep` times the dense one."""
    allowed, low, high = keep * matrix.size, 1, matrix.size
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if size(matrix, middle) <= allowed else (low, middle - 1)
    return low


def _spend_rest(
    matrices: Sequence[Matrix], ranks: Sequence[int], left: int, size: Callable[[Matrix, int], int], most: float
) -> list[int | None]:
    """Raise ranks by one, in order, as far as `left` goes; then make those dense that can be raised no further."""
    raised: list[int | None] = list(ranks)
    full: list[int] = []
    for i, each in enumerate(matrices):
        following = size(each, ranks[i] + 1)
        cost = following - size(each, ranks[i])
        if following >= each.size or following > most * each.size:
            full.append(i)
        elif cost <= left:
            raised[i] = ranks[i] + 1
            left -= cost
    for i in reversed(full):
        cost = matrices[i].size - size(matrices[i], ranks[i])
        if cost <= left:
            raised[i] = None
            left -= cost
    return raised
