"""A few codes per token in place of an embedding row, from the embedding's singular vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from methods.families import architecture
from methods.interface import Budget, Method, MethodError, Plan, Refusal, Statistics
from methods.planning import accept, student_size

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class EmbeddingSvd(Method):
    """Sub-token codes: E[v] ~ sum over j of T_j[code_j(v)], codes from an SVD of E.  After GPTRec, arXiv 2306.11114.

    The t leading left singular vectors of the token embedding E (V x D) are each cut into c quantile bins; a token's
    bins are its codes, and the t tables (c x D) are fitted to E by least squares. t is a field, c is solved from the
    budget, and only the embedding is touched: with a tied output matrix that shares the codes, else the input's alone.

    GPTRec takes the SVD of the user-item matrix and spells each item as t symbols; here the matrix is the teacher's
    embedding, a token stays one position, and its vectors are summed. How GPTRec normalises and breaks ties is not
    known: quantiles need no normalisation, and ties go by token number.
    """

    codes: int = 8
    """Codes per token, t."""

    def __post_init__(self) -> None:
        if self.codes < 1:
            raise MethodError(f"codes: {self.codes} is too few; nearest: 1")

    def plan(self, teacher_config: PretrainedConfig, budget: Budget | None) -> Plan | Refusal:
        assert budget is not None, "embedding_svd is budgeted"
        dense = architecture(teacher_config)
        target = budget.target(dense.num_params)
        most = min(dense.vocab, dense.width)
        if self.codes > most:
            raise MethodError(f"codes: {self.codes} of an embedding {dense.vocab} x {dense.width}; nearest: {most}")
        surgery: dict[str, dict[str, Any]] = {}
        highest = (dense.vocab - 1) // self.codes  # at t c = V the tables are as large as the embedding
        if target < dense.num_params and highest >= 2:
            entries = target - (dense.num_params - dense.vocab * dense.width)
            values = min(max(2, entries // (self.codes * dense.width)), highest)
            surgery[dense.embedding] = {"type": "code_embedding", "codes": self.codes, "values": values}
        plan = Plan(size=student_size(dense, surgery), surgery=surgery)
        reason = f"only the embedding is compressed, {self.codes} codes of 2 to {highest} values"
        return accept(budget, plan, dense.num_params, reason)

    def compress(self, teacher: PreTrainedModel, plan: Plan, *, seed: int, statistics: Statistics) -> PreTrainedModel:
        from methods.student import from_teacher

        return from_teacher(teacher, plan, _factors)


def _factors(path: str, weight: Tensor, spec: Mapping[str, Any]) -> dict[str, Tensor]:
    from methods.embedding_codes import fit_tables, quantile_codes

    codes = quantile_codes(weight, spec["codes"], spec["values"])
    return {"codes": codes, "tables": fit_tables(weight, codes, spec["values"])}
