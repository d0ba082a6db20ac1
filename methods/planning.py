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


def accept(budget: Budget | None, plan: Plan, teacher_size: int, refusal: str) -> Plan | Refusal:
    """`plan` when it meets the budget or there is none, else a refusal that names its size as the nearest one."""
    if budget is None or budget.met_by(plan.size, teacher_size):
        return plan
    return Refusal(reason=refusal, nearest=plan.size / teacher_size)


def uniform_ranks(matrices: Sequence[Matrix], entries: int, size: Callable[[Matrix, int], int]) -> list[int | None]:
    """One rank per matrix such that each keeps the same fraction of its entries and all together at most `entries`.

    The common fraction is found by bisection; what rounding leaves is spent by raising ranks by one, in order. None
    keeps the matrix dense: all of them when `entries` covers them, one whose next rank would save nothing.

    Args:
        size: parameters of a factorisation of the matrix at a rank of at least 1; increasing in the rank.
    """
    if entries >= sum(each.size for each in matrices):
        return [None] * len(matrices)
    kinds = {(each.out_features, each.in_features): each for each in matrices}

    def at(keep: float) -> list[int]:
        ranks = {shape: _largest_rank(each, keep, size) for shape, each in kinds.items()}
        return [ranks[each.out_features, each.in_features] for each in matrices]

    def spent(ranks: Sequence[int]) -> int:
        return sum(size(each, rank) for each, rank in zip(matrices, ranks, strict=True))

    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if spent(at(middle)) <= entries else (low, middle)
    return _spend_rest(matrices, at(low), entries, size)


def _largest_rank(matrix: Matrix, keep: float, size: Callable[[Matrix, int], int]) -> int:
    """The largest rank of at least 1 whose size is at most `keep` times the dense one."""
    allowed, low, high = keep * matrix.size, 1, matrix.size
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if size(matrix, middle) <= allowed else (low, middle - 1)
    return low


def _spend_rest(
    matrices: Sequence[Matrix], ranks: Sequence[int], entries: int, size: Callable[[Matrix, int], int]
) -> list[int | None]:
    """Raise ranks by one, in order, as far as `entries` go; a rank that saves nothing gives way to the dense matrix."""
    left = entries - sum(size(each, rank) for each, rank in zip(matrices, ranks, strict=True))
    raised: list[int | None] = list(ranks)
    for i, each in enumerate(matrices):
        cost = min(size(each, ranks[i] + 1), each.size) - size(each, ranks[i])
        if cost <= left:
            raised[i] = ranks[i] + 1 if size(each, ranks[i] + 1) < each.size else None
            left -= cost
    return raised
