"""The size card as text: each count with the rule by which it counts, and the papers that count so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from results.claims import RULES
from results.record import SizeCard
from results.reported import collection


@dataclass(frozen=True)
class Count:
    """One figure of the card."""

    field: str
    rule: str
    about: str


COUNTS = (
    Count(
        "params", "unique", "each parameter once, a tied matrix once; budgets count so, DistilGPT2, TTM and Krony-PT"
    ),
    Count(
        "params_without_output",
        "without_output_matrix",
        "an output matrix that is not tied to the embedding left out; KnGPT2 and TQCompressor count so",
    ),
    Count(
        "params_without_embedding",
        "without_embedding",
        "the token embedding left out, and an output matrix that is tied to it; positions stay",
    ),
    Count("stored_bytes", "stored", "bytes of the student's files of weights"),
    Count("materialised_bytes", "materialised", "bytes of the parameters of the dense model that it stands for"),
    Count("macs_per_token", "macs", "multiply-adds per token of all products with weights, the output matrix included"),
)


def size_facts(size: SizeCard, method: str) -> dict[str, str]:
    """Field -> count, the rule's name, and what it counts; then the published model that has these counts."""
    facts = {}
    for each in COUNTS:
        number = f"{getattr(size, each.field):,}"
        fraction = f" ({size.params_fraction:.4f} of the teacher)" if each.field == "params" else ""
        facts[each.field] = f"{number}{fraction}  {each.rule}: {each.about}"
    return facts | dict(_published(size, method))


def _published(size: SizeCard, method: str) -> Iterator[tuple[str, str]]:
    """Models of the method with the same unique count, and what their sources print."""
    told = set()
    for model in collection().models.values():
        if model.method != method or model.params != size.params or model.params_paper is None or model.rule is None:
            continue
        if model.printed and model.name not in told:
            told.add(model.name)
            yield f"as {model.name}", f"printed {model.printed}: {model.params_paper:,}, {RULES[model.rule]}"
