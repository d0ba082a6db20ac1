"""Which Kronecker shapes replace which matrices: the solver over factor shapes, and layouts given explicitly.

Shapes: W (m x n) ~ sum over k terms of A (m1 x n1) (x) B (m2 x n2), m = m1 m2, n = n1 n2. All arithmetic, no weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, Literal, Protocol

from methods.families import Architecture, Matrix, Role
from methods.interface import Budget, MethodError, Plan, Refusal
from methods.layers.factorised import count
from methods.layers.kronecker import KroneckerEmbedding, KroneckerLinear, kronecker_macs
from methods.planning import accept, student_size
from methods.scope import Matrices
from methods.spelling import nearest

STEPS = (2, 4, 8, 16)
"""How many times smaller a matrix or the embedding gets, in the order in which a shrinking budget takes them."""

Head = Literal["tied", "untied"]
Shapes = Mapping[Role, tuple[int, int]]
"""Role -> (m1, n1): A's rows and columns for one split of a matrix (out x in)."""
Surgery = dict[str, dict[str, Any]]
Move = tuple[str, dict[str, Any]]
"""Module path and the specification of the layer that replaces it."""

_FFN: set[Role] = {"up", "gate", "down"}
_ROLES: tuple[Role, ...] = ("qkv", "q", "k", "v", "o", "up", "gate", "down")


@dataclass(frozen=True, kw_only=True)
class Form:
    """How a matrix is written: the layer's kind, the number of terms, and whether each has a learned scalar."""

    kind: str = KroneckerLinear.kind
    terms: int = 1
    scaled: bool = False

    def spec(self, matrix: Matrix, left: tuple[int, int]) -> dict[str, Any]:
        """The layer's specification with A of shape `left`."""
        scaled = {"scaled": True} if self.scaled else {}
        return {"type": self.kind, "left": list(left), "splits": matrix.splits, "terms": self.terms, **scaled}


def moves(
    dense: Architecture,
    scope: Sequence[Matrix],
    form: Form,
    *,
    max_macs: float,
    embedding: Mapping[int, Sequence[int]],
) -> Iterator[Move]:
    """The solver's fixed sequence, which scales KnGPT2's layout: for r of 2, 4, 8, 16 in turn, the embedding r times
    smaller, then the odd blocks in `scope` from the first to the last, matrix by matrix, then the even ones.

    Args:
        max_macs: largest multiply-adds of a layer, as a fraction of the dense matrix's.
        embedding: r -> sizes of the embedding's small factors; a step that is left out skips the embedding.
    """
    for step in STEPS:
        factors = embedding.get(step)
        if factors and dense.width % prod(factors) == 0:
            yield dense.embedding, {"type": KroneckerEmbedding.kind, "factors": list(factors)}
        for parity in (1, 0):
            for each in (each for each in scope if each.block % 2 == parity):
                rows, columns = each.out_features // each.splits, each.in_features
                left = left_shape(rows, columns, step=step, terms=form.terms, max_macs=max_macs)
                if left is not None:
                    yield each.path, form.spec(each, left)


@lru_cache(maxsize=4096)
def left_shape(rows: int, columns: int, *, step: int, terms: int, max_macs: float) -> tuple[int, int] | None:
    """(m1, n1) of A that makes W (rows x columns) about `step` times smaller; None when no shape does.

    With k terms the kept fraction is about k/f, f = m2 n2 the entries of B. f is the smallest number from k step to
    less than 2 k step for which there is a candidate. A pair (m2, n2) is a candidate when it divides W, holds k
    independent terms, saves parameters, and takes at most `max_macs` of the dense matrix's multiply-adds, k times
    `kronecker_macs` against rows columns. Of the candidates of that f the one with the highest attainable rank,
    min(rows, columns, k min(m1, n1) min(m2, n2)), is taken; then the fewest multiply-adds; then the tallest B.

    So B lies along W's longer side, as far as the rank stays full. One term and f = 2 cannot keep a square matrix at
    full rank; KnGPT2's layout halves square matrices nevertheless, and so does this rule.
    """
    for size in range(terms * step, 2 * terms * step):
        fitting = [
            shape
            for shape in _divisor_pairs(rows, columns, size)
            if _is_candidate(rows, columns, shape, terms=terms, max_macs=max_macs)
        ]
        if fitting:
            m2, n2 = min(fitting, key=lambda shape: _preference(rows, columns, shape, terms))
            return rows // m2, columns // n2
    return None


def _divisor_pairs(rows: int, columns: int, size: int) -> list[tuple[int, int]]:
    """All (m2, n2) with m2 n2 = size, m2 dividing the rows and n2 the columns."""
    pairs = ((m2, size // m2) for m2 in range(1, size + 1) if size % m2 == 0)
    return [(m2, n2) for m2, n2 in pairs if rows % m2 == 0 and columns % n2 == 0]


def _is_candidate(rows: int, columns: int, right: tuple[int, int], *, terms: int, max_macs: float) -> bool:
    m2, n2 = right
    m1, n1 = rows // m2, columns // n2
    independent = terms <= min(m1 * n1, m2 * n2)
    saves = terms * (m1 * n1 + m2 * n2) < rows * columns
    return independent and saves and terms * kronecker_macs(m1, n1, m2, n2) <= max_macs * rows * columns


def _preference(rows: int, columns: int, right: tuple[int, int], terms: int) -> tuple[int, int, int]:
    m2, n2 = right
    m1, n1 = rows // m2, columns // n2
    rank = min(rows, columns, terms * min(m1, n1) * min(m2, n2))
    return -rank, kronecker_macs(m1, n1, m2, n2), -m2


def explicit(dense: Architecture, scope: Sequence[Matrix], shapes: Shapes, form: Form) -> Surgery:
    """Every matrix in scope whose role `shapes` names, with the A given there; the others stay dense.

    Raises:
        MethodError: the model has no matrix of a role, A does not divide one, or holds fewer independent terms than
            asked for.
    """
    roles = {each.role for each in dense.matrices}
    for role in shapes:
        if role not in roles:
            raise MethodError(f"shapes: this model has no {role!r}{nearest(role, roles)}")
    surgery = {}
    for each in (each for each in scope if each.role in shapes):
        rows, columns = each.out_features // each.splits, each.in_features
        m1, n1 = shapes[each.role]
        if m1 < 1 or n1 < 1 or rows % m1 or columns % n1:
            raise MethodError(f"shapes: {each.role} {[m1, n1]} does not divide {rows} x {columns} ({each.path})")
        most = min(m1 * n1, rows * columns // (m1 * n1))
        if form.terms > most:
            raise MethodError(f"terms: {form.terms} is more than {each.role} {[m1, n1]} can use; at most {most}")
        surgery[each.path] = form.spec(each, (m1, n1))
    return surgery


class Layout(Protocol):
    """Fields of a method that say what becomes a Kronecker product."""

    @property
    def shapes(self) -> Shapes | None: ...
    @property
    def matrices(self) -> Matrices: ...
    @property
    def embedding(self) -> bool | None: ...
    @property
    def head(self) -> Head | None: ...
    @property
    def terms(self) -> int: ...
    @property
    def max_macs(self) -> float: ...


def check_layout(layout: Layout) -> None:
    """Refuse fields that make no sense by themselves or together.

    Raises:
        MethodError: a number out of range, an untied head beside a dense embedding, or shapes that can replace nothing.
    """
    shapes = layout.shapes
    if layout.terms < 1:
        raise MethodError(f"terms: {layout.terms} is no number of products; nearest: 1")
    if not layout.max_macs > 0:
        raise MethodError(f"max_macs: {layout.max_macs} leaves no shape; nearest: 0.8")
    if layout.head == "untied" and layout.embedding is False:
        raise MethodError("head: untied needs a factorised embedding; nearest: embedding: true")
    if shapes is not None and not shapes:
        raise MethodError("shapes: names no matrix; leave it out to have shapes solved for the budget")
    for role in shapes or ():
        if role not in _ROLES:
            raise MethodError(f"shapes: {role!r} is no role{nearest(str(role), _ROLES)}")
        if layout.matrices != "all" and (role in _FFN) != (layout.matrices == "ffn"):
            raise MethodError(f"shapes: {role!r} is outside matrices: {layout.matrices}; nearest: matrices: all")


def plan_layout(
    layout: Layout,
    dense: Architecture,
    scope: Sequence[Matrix],
    form: Form,
    budget: Budget | None,
    *,
    splits: Mapping[int, Sequence[int]],
    given: int,
) -> Plan | Refusal:
    """The plan for the shapes that `layout` gives, else the one solved for the budget.

    Args:
        splits: how many times smaller the embedding gets -> the sizes of its small factors.
        given: which of them goes with given shapes.
    """
    if layout.shapes is not None:
        surgery = explicit(dense, scope, layout.shapes, form)
        if layout.embedding or layout.head == "untied":
            surgery = {dense.embedding: {"type": KroneckerEmbedding.kind, "factors": list(splits[given])}, **surgery}
        plan = laid_out(dense, surgery, layout.head)
        return accept(budget, plan, dense.num_params, "shapes are given, and have one size")
    assert budget is not None, "a layout without shapes is budgeted"
    open_choice = layout.embedding is None and layout.head != "untied"
    choices = (True, False) if open_choice else (layout.embedding is not False,)
    sequences = [
        list(moves(dense, scope, form, max_macs=layout.max_macs, embedding=splits if choice else {}))
        for choice in choices
    ]
    return _solve(dense, sequences, budget, layout.head)


def laid_out(dense: Architecture, surgery: Surgery, head: Head | None) -> Plan:
    """The plan for a layout; `untied` gives the student a dense output matrix of its own, the teacher's embedding.

    Without surgery the plan is the teacher itself, tied as it is.
    """
    untied = _unties(dense, surgery, head)
    changes = {"tie_word_embeddings": False} if untied else {}
    return Plan(size=student_size(dense, surgery, untied=untied), surgery=surgery, config_changes=changes)


def _unties(dense: Architecture, surgery: Mapping[str, Any], head: Head | None) -> bool:
    return head == "untied" and dense.tied and bool(surgery)


def _solve(
    dense: Architecture, sequences: Sequence[Sequence[Move]], budget: Budget, head: Head | None
) -> Plan | Refusal:
    """The prefix of a sequence whose size is nearest to the budget, from the first sequence that meets it."""
    target = budget.target(dense.num_params)
    plans = [laid_out(dense, _nearest_prefix(dense, sequence, target, head), head) for sequence in sequences]
    for plan in plans:
        if budget.met_by(plan.size, dense.num_params):
            return plan
    closest = min(plans, key=lambda plan: abs(plan.size - target))
    reason = f"matrices in scope get {STEPS[0]} to {STEPS[-1]} times smaller, in powers of two"
    return Refusal(reason=reason, nearest=closest.size / dense.num_params)


def _nearest_prefix(dense: Architecture, sequence: Sequence[Move], target: int, head: Head | None) -> Surgery:
    """The surgery after the first moves, as many as bring the size nearest to `target`."""
    shapes = {each.path: (each.out_features, each.in_features) for each in dense.matrices}
    shapes[dense.embedding] = (dense.vocab, dense.width)
    held = {path: rows * columns for path, (rows, columns) in shapes.items()}
    size, sizes = dense.num_params, [dense.num_params]
    if _unties(dense, dict(sequence), head):
        size += dense.vocab * dense.width
    for path, spec in sequence:
        entries = count(spec, *shapes[path])
        size, held[path] = size - held[path] + entries, entries
        sizes.append(size)
    taken = min(range(len(sizes)), key=lambda k: abs(sizes[k] - target))
    return dict(sequence[:taken])
