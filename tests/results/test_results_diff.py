"""What two rows differ in, against direct computations on their items."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from results.diff import diff
from results.diff_view import as_json, as_terminal
from results.errors import StoreError


def items(reader: Any, name: str) -> dict[str, np.ndarray]:
    table = pyarrow.parquet.read_table(io.BytesIO(reader.files[name]))
    return {column: table.column(column).to_numpy() for column in table.column_names}


def printed(found: Any) -> str:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=160)
    console.print(as_terminal(found))
    return console.file.getvalue()


@pytest.fixture
def two(reader: Any, sweep: Any) -> Any:
    """Rows `a` and `b`, two seeds each."""
    for seed in (0, 1):
        sweep.add("aaaaaaaa", "svd", seed=seed, quality=0.1)
        sweep.add("bbbbbbbb", "kronecker", seed=seed, quality=0.3, fields={"terms": 2})
    return reader


def test_flips_are_those_of_the_items(two: Any) -> None:
    (found,) = diff(two, "aaaaaaaa", two, "bbbbbbbb").flips
    lost: dict[str, int] = {}
    gained: dict[str, int] = {}
    both = 0
    for seed in (0, 1):
        a, b = (items(two, f"{name}-{seed}-cola") for name in ("aaaaaaaa", "bbbbbbbb"))
        for item, before, after in zip(a["item"], a["correct"], b["correct"], strict=True):
            both += bool(before and after)
            if before and not after:
                lost[item] = lost.get(item, 0) + 1
            if after and not before:
                gained[item] = gained.get(item, 0) + 1
    assert lost
    assert (dict(found.right_to_wrong), dict(found.wrong_to_right), found.both_right) == (lost, gained, both)
    assert list(found.right_to_wrong.values()) == sorted(lost.values(), reverse=True)
    swapped = diff(two, "bbbbbbbb", two, "aaaaaaaa").flips[0]
    assert (swapped.right_to_wrong, swapped.wrong_to_right) == (found.wrong_to_right, found.right_to_wrong)
    total = found.both_right + found.both_wrong + sum(lost.values()) + sum(gained.values())
    assert total == 2 * found.items


def test_documents_are_ordered_by_how_much_worse_they_got(two: Any) -> None:
    (found,) = diff(two, "aaaaaaaa", two, "bbbbbbbb").documents
    rates = []
    for name in ("aaaaaaaa", "bbbbbbbb"):
        seeds = [items(two, f"{name}-{seed}-ppl") for seed in (0, 1)]
        rates.append(np.mean([each["nll"] / each["words"] for each in seeds], axis=0))
    worst = int(np.argmax(rates[1] - rates[0]))
    assert found.per == "word"
    assert found.worse[0].item == f"page-{worst}"
    assert found.worse[0].a == pytest.approx(rates[0][worst], rel=1e-12)
    assert found.worse[0].b == pytest.approx(rates[1][worst], rel=1e-12)
    assert len(found.worse) == int((rates[1] > rates[0]).sum())
    assert len(found.worse) + len(found.better) == found.items


def test_metrics_are_paired_over_what_both_have(two: Any) -> None:
    """Two seeds of one row are compared too. A perplexity's difference is the logarithm of the ratio."""
    for targets, seeds in ((("aaaaaaaa", "bbbbbbbb"), (0, 1)), (("aaaaaaaa#0", "bbbbbbbb#1"), ())):
        found = {each.column.metric: each for each in diff(two, targets[0], two, targets[1]).metrics}
        gap = found["word_perplexity"].difference
        totals = [
            np.mean([t["nll"].sum() / t["words"].sum() for t in tables])
            for tables in (
                [items(two, f"{target[:8]}-{seed}-ppl") for seed in ((0, 1) if "#" not in target else (target[-1],))]
                for target in targets
            )
        ]
        assert gap.difference == pytest.approx(totals[0] - totals[1], rel=1e-6)
        assert found["word_perplexity"].a == pytest.approx(np.exp(totals[0]), rel=1e-6)
        assert found["word_perplexity"].seeds == seeds
        assert gap.low is not None
        assert gap.low < gap.difference < gap.high < 0
        assert found["word_perplexity"].better == "a"
    one = diff(two, "aaaaaaaa#0", two, "aaaaaaaa#1").metrics[0]
    assert one.difference.p_value is not None


def test_configuration_code_data_and_hardware_are_named(reader: Any, sweep: Any) -> None:
    old = {"commit": "1111111", "versions": {"torch": "2.8"}, "hardware": "laptop", "sweep": {"corpus": {"x": [1, 2]}}}
    new = {"commit": "2222222", "versions": {"torch": "2.9"}, "hardware": "H100", "sweep": {"corpus": {"x": [1, 3]}}}
    sweep.add("aaaaaaaa", "svd", provenance=old)
    sweep.add("bbbbbbbb", "svd", fields={"matrices": "ffn"}, budget="params=0.33", data="sha256:other", provenance=new)
    found = diff(reader, "aaaaaaaa", reader, "bbbbbbbb")

    def named(block: str) -> dict[str, tuple[Any, Any]]:
        return {each.what: (each.a, each.b) for each in getattr(found, block)}

    assert named("configuration") == {
        "budget": ("params=0.66", "params=0.33"),
        "field matrices": (None, "ffn"),
        "corpus.x": ([1, 2], [1, 3]),
    }
    assert named("code") == {"commit": ("1111111", "2222222"), "version torch": ("2.8", "2.9")}
    assert named("execution") == {"hardware": ("laptop", "H100")}
    assert named("protocols") == {"wikitext2.word_ppl.v1 data": ("sha256:wikitext2", "sha256:other")}
    assert "params" in named("figures")
    assert [each.column.metric for each in found.metrics] == ["matthews"]  # the perplexities are of two data sets
    assert found.documents == []


def test_modules_come_from_the_manifests_of_two_stores(reader: Any, sweep: Any, new_reader: Any) -> None:
    record = sweep.add("aaaaaaaa", "svd")
    other = new_reader([record], dict(reader.files))
    for store, value in ((reader, "0" * 64), (other, "1" * 64)):
        code = {"methods.svd": value, "methods.same": "2" * 64}
        name = f"artifacts/teacher/{record.stages['teacher']}/manifest.json"
        store.files[name] = json.dumps({"parts": {"code": code}}).encode()
    found = diff(reader, "aaaaaaaa", other, "aaaaaaaa")
    assert [(each.what, each.a, each.b) for each in found.code] == [("module methods.svd", "0" * 12, "1" * 12)]
    assert [each.difference.difference for each in found.metrics] == [0, 0]


def test_it_is_shown_and_what_is_no_row_is_refused(two: Any) -> None:
    found = diff(two, "aaaaaaaa", two, "bbbbbbbb")
    text = printed(found)
    for part in ("field terms", "right to wrong", "documents or windows are worse in B", "most worse, nats per word"):
        assert part in text
    data = json.loads(as_json(found))
    assert set(data) >= {"configuration", "code", "protocols", "execution", "metrics", "flips", "documents"}
    with pytest.raises(StoreError, match="did you mean 'aaaaaaaa'"):
        diff(two, "aaaaaaab", two, "bbbbbbbb")


def test_headings_stand_on_a_line_each(two: Any) -> None:
    lines = [line.strip() for line in printed(diff(two, "aaaaaaaa#0", two, "aaaaaaaa#1")).splitlines()]
    assert {"configuration", "size and status"} <= set(lines)


def test_failed_rows_and_broken_items_are_no_crash(two: Any, sweep: Any) -> None:
    sweep.add("cccccccc", "tq", status="failed", reason="[red]no[/red]")
    assert "[red]no[/red]" in printed(diff(two, "aaaaaaaa", two, "cccccccc"))
    two.files["bbbbbbbb-0-cola"] = b"no parquet"
    del two.files["bbbbbbbb-1-ppl"]
    found = diff(two, "aaaaaaaa", two, "bbbbbbbb")
    assert (found.flips[0].seeds, len(found.documents)) == ((1,), 1)
    printed(found)
