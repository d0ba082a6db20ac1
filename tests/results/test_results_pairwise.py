"""All pairs at once give what one pair after the other gives."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest

from results import pairwise
from results.items import Sample
from results.pairwise import compare_all
from results.statistics import compare

RNG = np.random.default_rng(0)
Rows = list[dict[int, Sample]]


def rows(count: int, seeds: int, items: int, *, scale: Any = "linear", place: bool = False) -> Rows:
    x = RNG.standard_normal(items) + 0.5 * RNG.standard_normal((count, seeds, items)) + 0.1 * RNG.random((count, 1, 1))
    if scale == "proportion":
        x = (x > 0).astype(float)
    names = np.array([str(i) for i in range(items)], dtype=object)
    place_N = np.arange(items) if place else None
    return [
        {s: Sample(float(v.mean()), scale, names, v - v.mean(), place_N=place_N) for s, v in enumerate(row)}
        for row in x
    ]


def without_items(found: Rows) -> Rows:
    return [{seed: Sample(sample.value) for seed, sample in row.items()} for row in found]


def identical(found: Rows) -> Rows:
    return [found[0], *found]


def shorter(found: Rows) -> Rows:
    return [{seed: sample for seed, sample in found[0].items() if seed}, *found[1:]]


CASES: dict[str, Rows] = {
    "seeds and items": rows(5, 3, 30),
    "two seeds, many items": rows(4, 2, 150),
    "one seed": rows(4, 1, 30),
    "accuracies": rows(4, 3, 40, scale="proportion"),
    "accuracies of one seed": rows(4, 1, 40, scale="proportion"),
    "windows": rows(4, 2, 40, place=True),
    "seeds only": without_items(rows(4, 3, 10)),
    "one seed, no items": without_items(rows(4, 1, 10)),
    "equal rows": identical(rows(3, 2, 20)),
    "equal rows without items": without_items(identical(rows(3, 2, 20))),
    "deterministic without items": [{s: Sample(v) for s in (0, 1)} for v in (1.0, 2.0, 2.0)],
    "other seeds": shorter(rows(4, 3, 20)),
    "two items": rows(3, 2, 2),
    "infinite": [*without_items(rows(3, 2, 10)), {0: Sample(float("inf")), 1: Sample(1.0)}],
    "none": [],
    "one": rows(1, 2, 10),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("chunk", [2**20, 1])
def test_every_pair_is_as_if_alone(monkeypatch: pytest.MonkeyPatch, name: str, chunk: int) -> None:
    monkeypatch.setattr(pairwise, "CHUNK", chunk)
    found = compare_all(CASES[name])
    expected = [compare(a, b) for a, b in combinations(CASES[name], 2)]
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.basis == theirs.basis
        assert ours.difference == pytest.approx(theirs.difference, rel=1e-12, nan_ok=True)
        for field in ("low", "high", "p_value", "effect"):
            own, other = getattr(ours, field), getattr(theirs, field)
            assert own == (other if other is None else pytest.approx(other, rel=1e-6, abs=1e-12)), field
        assert (ours.spread is None) == (theirs.spread is None)
        if ours.spread is not None and theirs.spread is not None:
            assert ours.spread.error == pytest.approx(theirs.spread.error)
            assert ours.spread.dof == pytest.approx(theirs.spread.dof)


def test_common_cases_are_not_compared_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(pairwise, "compare", never)
    for name in ("seeds and items", "one seed", "accuracies", "seeds only"):
        compare_all(CASES[name])
