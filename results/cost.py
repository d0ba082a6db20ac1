"""What a row took, with the stages it shares split evenly over the cells that use them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from results.model import Cost
from results.plain_text import plain
from results.record import Record


def count_users(records: Iterable[Record]) -> Counter[tuple[str, str]]:
    """How many cells of the board use each stage, as (stage, key)."""
    return Counter(use for record in records for use in {(cost.stage, cost.key) for cost in record.costs})


def share(records: Sequence[Record], users: Mapping[tuple[str, str], int]) -> Cost:
    """The cost of one row over its seeds. Over all rows of a board, the shares add up to what was spent."""
    by_stage: dict[str, float] = {}
    tokens = flops = 0.0
    for record in records:
        for cost in record.costs:
            part = 1 / users[cost.stage, cost.key]
            stage = plain(cost.stage)
            by_stage[stage] = by_stage.get(stage, 0.0) + part * cost.worker_s
            tokens += part * cost.tokens
            flops += part * cost.flops
    return Cost(sum(by_stage.values()), tokens, flops, dict(sorted(by_stage.items())))
