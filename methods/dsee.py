"""Dual sparsity: a pruned and frozen weight with a trained low-rank term and a trained sparse one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

from methods.families import Matrix, architecture
from methods.interface import Budget, Method, MethodError, Plan, Refusal, Statistics
from methods.planning import accept, student_size
from methods.scope import Layers, Matrices, select

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel

Surgery = dict[str, dict[str, Any]]

TRAINED = ("left", "right", "residual")
_COLUMNS = ("o", "down")
"""Roles whose columns, not rows, belong to heads and neurons."""
_FFN = ("up", "gate", "down")


@dataclass(frozen=True, kw_only=True)
class Dsee(Method):
    """DSEE: W' = S1 * W + U V + S2, of which only U, V and S2's entries train.  Chen et al., arXiv 2111.00160.

    S1 is a mask: `unstructured` keeps a matrix' largest magnitudes, `structured` keeps heads and FFN neurons, those of
    the largest l1 norm over all matrices of the block that they run through. U V has a small rank, S2 a fixed support;
    the budget decides how much S1 keeps. What S1 keeps is frozen, and so is everything else but a classification head,
    at fine-tuning as under a language-model recipe.

    The paper's starts, ranks, support and figures for GPT-2 are not known. Taken: U V starts as the truncated SVD of
    what S1 removes; S2's support is the largest entries of W - S1 * W - U V (unstructured), or the largest of the
    entries kept, from zero (structured). Biases stay. A full budget is the teacher itself, and trains as a whole.
    """

    mask: Literal["unstructured", "structured"] = "unstructured"
    """What S1 removes: single entries, or heads (all heads of a key-value group together) and FFN neurons."""
    rank: int = 8
    """Rank of U V; at most an eighth of a matrix' shorter side."""
    residual: float = 0.001
    """Entries of S2, as a fraction of the matrix; one at least."""
    layers: Layers = "all"
    """Blocks in scope, counted from 0."""
    matrices: Matrices = "all"
    """Matrices in scope within a block."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise MethodError(f"rank: {self.rank} is too low; nearest: 1")
        if not 0 < self.residual < 1:
            raise MethodError(f"residual: {self.residual:g} is no fraction between 0 and 1; the default is 0.001")

    def plan(self, teacher_config: PretrainedConfig, budget: Budget | None) -> Plan | Refusal:
        assert budget is not None, "dsee is budgeted"
        dense = architecture(teacher_config)
        scope = select(dense, self.layers, self.matrices)
        target = budget.target(dense.num_params)
        whole = sum(each.size for each in scope)
        added = sum(self._rank(m) * (m.out_features + m.in_features) + self._entries(m) for m in scope)
        entries = target - (dense.num_params - whole) - added
        surgery: Surgery = {}
        if scope and target < dense.num_params:
            surgery = (
                self._unstructured(scope, entries)
                if self.mask == "unstructured"
                else self._structured(scope, entries, _groups(teacher_config))
            )
        plan = Plan(size=student_size(dense, surgery), surgery=surgery, trained=TRAINED if surgery else ())
        reason = f"{len(scope)} matrices are in scope, with {added:,} parameters for U, V and S2"
        return accept(budget, plan, dense.num_params, reason)

    def _rank(self, matrix: Matrix) -> int:
        return max(1, min(self.rank, min(matrix.out_features, matrix.in_features) // 8))

    def _entries(self, matrix: Matrix) -> int:
        return max(1, round(self.residual * matrix.size))

    def _unstructured(self, scope: Sequence[Matrix], entries: int) -> Surgery:
        """Every matrix keeps the same fraction of its entries; the first ones keep one more, to fill the budget."""
        whole = sum(each.size for each in scope)
        kept = [max(1, entries * each.size // whole) for each in scope]
        left = max(0, entries - sum(kept))
        return {
            m.path: {
                "type": "sparse_low_rank",
                "kept": min(m.size, k + (i < left)),
                "rank": self._rank(m),
                "residual": self._entries(m),
            }
            for i, (m, k) in enumerate(zip(scope, kept, strict=True))
        }

    def _structured(self, scope: Sequence[Matrix], entries: int, groups: int) -> Surgery:
        """The same fraction of heads and of neurons, at least one of each in a block; neurons fill the budget."""
        blocks = [list(each) for _, each in groupby(scope, key=lambda m: m.block)]
        per_group = sum(m.size for m in blocks[0] if m.role not in _FFN) // groups
        ffn = [m for m in blocks[0] if m.role in _FFN]
        inner = _units(ffn[0], groups) if ffn else 0
        per_neuron = sum(m.size for m in ffn) // inner if ffn else 0
        fraction = entries / sum(each.size for each in scope)
        heads = min(max(round(fraction * groups * len(blocks)), len(blocks)), groups * len(blocks))
        rest = (entries - heads * per_group) // per_neuron if ffn else 0
        neurons = min(max(rest, len(blocks)), inner * len(blocks))
        surgery: Surgery = {}
        for i, block in enumerate(blocks):
            h, n = (total // len(blocks) + (i < total % len(blocks)) for total in (heads, neurons))
            surgery |= {m.path: self._structured_spec(m, n if m.role in _FFN else h, groups) for m in block}
        return surgery

    def _structured_spec(self, matrix: Matrix, kept: int, groups: int) -> dict[str, Any]:
        rows, columns = matrix.out_features, matrix.in_features
        if matrix.role in _COLUMNS:
            columns = columns // _units(matrix, groups) * kept
        else:
            rows = rows // _units(matrix, groups) * kept
        return {
            "type": "sparse_low_rank.structured",
            "rows": rows,
            "columns": columns,
            "rank": self._rank(matrix),
            "residual": min(self._entries(matrix), rows * columns),
        }

    def compress(self, teacher: PreTrainedModel, plan: Plan, *, seed: int, statistics: Statistics) -> PreTrainedModel:
        from methods.sparse_split import structured_split, unstructured_split
        from methods.student import from_teacher

        chosen = kept_features(teacher, plan.surgery) if self.mask == "structured" else {}

        def split(path: str, weight: Tensor, spec: Mapping[str, Any]) -> dict[str, Tensor]:
            if path in chosen:
                return structured_split(weight, *chosen[path], spec["rank"], spec["residual"])
            return unstructured_split(weight, spec["kept"], spec["rank"], spec["residual"])

        return from_teacher(teacher, plan, split)


def kept_features(
    teacher: PreTrainedModel, surgery: Mapping[str, Mapping[str, Any]]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Module path -> rows and columns that stay: those of the heads and of the neurons with the largest l1 norms.

    The norm of a head is the sum over its rows of query, key and value (of all queries of its key-value group) and its
    columns of the output; a neuron's over its rows of up and gate and its column of down. The earlier wins a tie.
    """
    import torch

    groups = _groups(teacher.config)
    scope = [each for each in architecture(teacher.config).matrices if each.path in surgery]
    chosen: dict[str, tuple[Tensor, Tensor]] = {}
    for _, found in groupby(scope, key=lambda m: (m.block, m.role in _FFN)):
        part = list(found)
        norms = torch.stack([_norms(teacher, each, groups) for each in part]).sum(0)
        ranked = norms.argsort(descending=True, stable=True)
        chosen |= {each.path: _staying(each, surgery[each.path], ranked, groups) for each in part}
    return chosen


def _norms(teacher: PreTrainedModel, matrix: Matrix, groups: int) -> Tensor:
    """The l1 norm of what each head or neuron has in this matrix."""
    from methods.student import dense_OI

    across = 0 if matrix.role in _COLUMNS else 1
    norms = dense_OI(teacher.get_submodule(matrix.path)).double().abs().sum(across)
    return norms.reshape(matrix.splits, _units(matrix, groups), -1).sum((0, 2))


def _staying(matrix: Matrix, spec: Mapping[str, Any], ranked: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Rows and columns of the heads or neurons that come first in `ranked`, as many as the specification has."""
    import torch

    rows, columns = torch.arange(matrix.out_features), torch.arange(matrix.in_features)
    every, kept = (columns, spec["columns"]) if matrix.role in _COLUMNS else (rows, spec["rows"])
    each_SUF = every.reshape(matrix.splits, len(ranked), -1)
    first = ranked[: kept * len(ranked) // len(every)].sort().values
    stay = each_SUF[:, first].flatten()
    return (rows, stay) if matrix.role in _COLUMNS else (stay, columns)


def _groups(config: PretrainedConfig) -> int:
    """Heads that are removed together: key-value groups, which are single heads in GPT-2."""
    groups: int = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return groups


def _units(matrix: Matrix, groups: int) -> int:
    """Heads (key-value groups) or neurons that share out the matrix' rows or columns."""
    if matrix.role in _FFN:
        return matrix.in_features if matrix.role in _COLUMNS else matrix.out_features
    return groups
