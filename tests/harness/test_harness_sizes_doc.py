"""docs/sizes.md: each line of arithmetic holds, and its totals are what the methods plan."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

TEXT = (Path(__file__).parents[2] / "docs" / "sizes.md").read_text(encoding="utf-8")
LINES = re.findall(r"^(\d[\d *+()-]*) = (\d+)$", TEXT, re.MULTILINE)
OPERATORS: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul
}  # fmt: skip


def value(node: ast.expr) -> int:
    """A sum of products of whole numbers; nothing else has a value."""
    if isinstance(node, ast.BinOp):
        return OPERATORS[type(node.op)](value(node.left), value(node.right))
    assert isinstance(node, ast.Constant)
    assert isinstance(node.value, int)
    return node.value


@pytest.mark.parametrize(("sum_", "total"), LINES)
def test_the_arithmetic_holds(sum_: str, total: str) -> None:
    assert value(ast.parse(sum_, mode="eval").body) == int(total)


def test_every_line_of_a_sum_is_checked() -> None:
    assert len(LINES) == sum(" = " in line for line in TEXT.splitlines() if line[:1].isdigit())
    assert len(LINES) > 20


def test_large_numbers_in_the_prose_are_totals_of_a_line() -> None:
    told = {int(number.replace(",", "")) for number in re.findall(r"\b\d{1,3}(?:,\d{3}){2,}\b", TEXT)}
    assert told
    assert told <= {int(total) for _, total in LINES}


def test_the_totals_are_those_of_the_presets_and_of_what_papers_reported() -> None:
    from harness.preset_table import preset_counts
    from results.reported import collection

    totals = {int(total) for _, total in LINES}
    presets = [line for line in preset_counts() if line.preset != "ttm-80"]
    assert presets
    assert all(line.equal and line.computed in totals for line in presets)
    models = [each for each in collection().models.values() if each.teacher == "gpt2" and each.method != "tensor_train"]
    assert {count for each in models for count in (each.params, each.params_paper)} <= totals | {None}


def test_every_field_of_the_card_is_in_the_table_with_its_rule() -> None:
    from results.record import SizeCard
    from results.size_view import COUNTS

    rows = dict(re.findall(r"^\| `(\w+)` \| `(\w+)` \|", TEXT, re.MULTILINE))
    assert rows == {each.field: each.rule for each in COUNTS}
    assert rows.keys() == SizeCard.model_fields.keys() - {"params_fraction"}
    assert "`scales_folded`" in TEXT


def test_show_prints_every_count_with_its_rule_and_the_published_model() -> None:
    from results.record import SizeCard
    from results.size_view import size_facts

    card = SizeCard(
        params=119_933_764, params_fraction=119_933_764 / 124_439_808, params_without_embedding=1, stored_bytes=2,
        params_without_output=81_336_388, materialised_bytes=3, macs_per_token=4,
    )  # fmt: skip
    facts = size_facts(card, "tq")
    assert facts["params"].startswith("119,933,764 (0.9638 of the teacher)  unique: ")
    assert facts["params_without_output"].startswith("81,336,388  without_output_matrix: ")
    assert facts["as TQCompressedGPT2"] == "printed 81M: 81,336,388, without an untied output matrix"
    assert [name for name in size_facts(card, "kronecker") if name.startswith("as ")] == []
