"""Item by item: which examples flipped between two rows, which documents one predicts worse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from results.influence import NORMALISERS, Columns, Floats
from results.items import read_items
from results.model import Column
from results.reader import Reader
from results.record import Measured
from results.scores import column_of

Group = Sequence[tuple[int, Measured, Measured]]
"""(seed, A's measurement, B's) of one column."""


@dataclass(frozen=True, kw_only=True)
class Flips:
    """Examples of a classification that one row answers rightly and the other wrongly, over all common seeds."""

    column: Column
    seeds: tuple[int, ...]
    items: int
    both_right: int
    both_wrong: int
    right_to_wrong: Mapping[str, int]
    """Item -> in how many seeds A is right and B is wrong, the most often first."""
    wrong_to_right: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Worse:
    """A document or window whose likelihood differs."""

    item: str
    a: float
    """Nats per normaliser, mean over the common seeds."""
    b: float


@dataclass(frozen=True, kw_only=True)
class Documents:
    """Per document or window: which B predicts worse than A, the worst first, and which better."""

    column: Column
    per: str
    """`word`, `token`, `byte` or `item`: what the nats are per."""
    items: int
    worse: Sequence[Worse]
    better: Sequence[Worse]


def flips(group: Group, reader_a: Reader, reader_b: Reader) -> Flips | None:
    """Right answers that became wrong and wrong ones that became right; None without any, as of a regression."""
    lost: Counter[str] = Counter()
    gained: Counter[str] = Counter()
    right = wrong = total = 0
    seeds = []
    for seed, a, b in group:
        pair = _paired(a, b, reader_a, reader_b)
        if pair is None or any("correct" not in columns or "nll" in columns for columns in pair[1:]):
            continue
        items, mine, theirs = pair[0], pair[1]["correct"] > 0.5, pair[2]["correct"] > 0.5
        lost.update(map(str, items[mine & ~theirs]))
        gained.update(map(str, items[~mine & theirs]))
        right, wrong, total = right + int((mine & theirs).sum()), wrong + int((~mine & ~theirs).sum()), len(items)
        seeds.append(seed)
    if not seeds or right + len(lost) + len(gained) == 0:
        return None
    return Flips(
        column=column_of(group[0][1]),
        seeds=tuple(seeds),
        items=total,
        both_right=right,
        both_wrong=wrong,
        right_to_wrong=_often_first(lost),
        wrong_to_right=_often_first(gained),
    )


def _often_first(counted: Counter[str]) -> Mapping[str, int]:
    return dict(sorted(counted.items(), key=lambda each: (-each[1], len(each[0]), each[0])))


def documents(group: Group, reader_a: Reader, reader_b: Reader) -> Documents | None:
    """Mean nats of each document under A and B, by its words, tokens or bytes; None without likelihoods."""
    totals: dict[str, list[Floats]] = {}
    per = ""
    seeds = 0
    for _, a, b in group:
        pair = _paired(a, b, reader_a, reader_b)
        if pair is None or any("nll" not in columns for columns in pair[1:]):
            continue
        items, mine, theirs = pair
        per, weight_N = _weight(mine)
        with np.errstate(divide="ignore", invalid="ignore"):
            rates = np.stack([mine["nll"] / weight_N, theirs["nll"] / weight_N], axis=1).astype(np.float64)
        for item, rate in zip(items, rates, strict=True):
            totals.setdefault(str(item), []).append(rate)
        seeds += 1
    if not seeds:
        return None
    means = {item: np.mean(each, axis=0) for item, each in totals.items() if len(each) == seeds}
    found = [Worse(item=item, a=float(a), b=float(b)) for item, (a, b) in means.items() if np.isfinite(a + b)]
    by_loss = sorted(found, key=lambda each: (each.a - each.b, each.item))
    worse = [each for each in by_loss if each.b > each.a]
    better = [each for each in reversed(by_loss) if each.b < each.a]
    return Documents(column=column_of(group[0][1]), per=per, items=len(found), worse=worse, better=better)


def _weight(columns: Columns) -> tuple[str, NDArray[np.float64]]:
    for name in NORMALISERS:
        if name in columns and float(columns[name].sum()) > 0:
            return name.removesuffix("s"), columns[name].astype(np.float64)
    return "item", np.ones(len(columns["nll"]))


def _paired(
    a: Measured, b: Measured, reader_a: Reader, reader_b: Reader
) -> tuple[NDArray[np.str_], Columns, Columns] | None:
    """The items that both have, in one order, and the columns of each."""
    mine, theirs = read_items(a, reader_a)[0], read_items(b, reader_b)[0]
    if mine is None or theirs is None:
        return None
    common, in_a, in_b = np.intersect1d(mine["item"].astype(str), theirs["item"].astype(str), return_indices=True)
    if len(common) == 0:
        return None
    return common, {k: v[in_a] for k, v in mine.items()}, {k: v[in_b] for k, v in theirs.items()}
