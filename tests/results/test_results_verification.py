"""What a board says of verifications that lie in its store."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from results.board import board
from results.json_view import dumps
from results.reproduction import compare_results, verdict
from results.show import as_terminal, show
from results.table import markdown
from results.verification import Check, Verification, Verified, outcome_of, verifications


class Listing:
    """A fake reader whose files can be listed."""

    def __init__(self, reader: Any) -> None:
        self.records, self.read_bytes, self.files = reader.records, reader.read_bytes, reader.files

    def names(self, directory: str, /) -> list[str]:
        return [name.partition("/")[2] for name in self.files if name.startswith(f"{directory}/")]

    def add(self, found: Verification) -> None:
        self.files[found.name] = found.model_dump_json().encode()


def of(record: Any, **changes: Any) -> Verification:
    """A verification of a record in which everything holds, but for the changes."""
    metrics = [
        Verified(
            protocol=each.protocol, metric=each.metric, how="re-evaluated", claimed=each.value,
            found=each.value * (1 + 2e-7), difference=each.value * 2e-7, tolerance=1e-5, holds=True,
        )
        for each in record.measured
    ]  # fmt: skip
    values = {
        "row": record.row, "seed": record.cell.seed, "outcome": outcome_of(record),
        "created_at": "2026-05-01T00:00:00Z", "metrics": metrics, "verdict": "holds",
    }  # fmt: skip
    return Verification(**{**values, **changes})


@pytest.fixture
def listing(reader: Any, sweep: Any) -> Listing:
    for seed in (0, 1):
        sweep.add("aaaaaaaa", "svd", seed=seed)
    return Listing(reader)


def row(listing: Any) -> Any:
    return board(listing).tabs[0].groups[0].rows[0]


def test_a_row_is_claimed_until_every_seed_was_evaluated_again(listing: Listing, reader: Any) -> None:
    first, second = reader.records()
    assert (row(reader).verified, row(listing).verified) == (None, None)
    listing.add(of(first))
    partly = row(listing).verified
    assert (partly.seeds, partly.unverified, partly.mark) == ((0,), (1,), "")
    listing.add(of(second, created_at="2026-05-02T00:00:00Z"))
    whole = row(listing).verified
    assert (whole.verdict, whole.mark, whole.date) == ("holds", "✓", "2026-05-02T00:00:00Z")
    assert whole.difference == pytest.approx(2e-7)
    assert whole.re_evaluated == 4
    assert "aaaaaaaa ✓" in markdown(board(listing))
    data = json.loads(dumps(board(listing)))["tabs"][0]["groups"][0]["rows"][0]["verified"]
    assert (data["verdict"], data["mark"], data["seeds"]) == ("holds", "✓", [0, 1])


def test_the_newest_counts_and_the_worst_seed_speaks(listing: Listing, reader: Any) -> None:
    first, second = reader.records()
    listing.add(of(first))
    listing.add(of(second))
    problem = Check(what="its numbers are those that were measured", problem="ppl is 3, not 4")
    listing.add(of(second, verdict="inconsistent", checks=[problem], created_at="2026-06-01T00:00:00Z"))
    found = row(listing).verified
    assert (found.verdict, found.mark) == ("inconsistent", "✗")
    assert "ppl is 3, not 4" in found.text
    listing.add(of(second, created_at="2026-07-01T00:00:00Z"))
    assert row(listing).verified.mark == "✓"


def test_what_was_verified_is_the_record_as_it_was(listing: Listing, reader: Any) -> None:
    for record in reader.records():
        listing.add(of(record))
    changed = [each.model_copy(update={"value": each.value * 0.9}) for each in reader.records()[0].measured]
    reader._records[0] = reader.records()[0].model_copy(update={"measured": changed})
    assert row(listing).verified.unverified == (0,)
    assert row(listing).verified.mark == ""


@pytest.mark.parametrize("verdict", ["recomputed", "partly", "unverifiable"])
def test_less_than_an_evaluation_has_no_mark(listing: Listing, reader: Any, verdict: str) -> None:
    for record in reader.records():
        listing.add(of(record, verdict=verdict))
    assert row(listing).verified.mark == ""
    assert "✓" not in markdown(board(listing))


def test_files_that_are_no_verifications_verify_nothing(listing: Listing, reader: Any) -> None:
    from rich.console import Console

    for number, content in enumerate((b"", b"{", b"[]", b'{"schema_version": 99}', b"\xff\xfe")):
        listing.files[f"verifications/{number}.json"] = content
    assert verifications(listing) == {}
    note = Check(what="x", problem="\x1b[31m<script>[bold]\nnext")
    for record in reader.records():
        listing.add(of(record, verdict="differs", checks=[note], row=record.row))
    console = Console(file=io.StringIO(), width=200)
    console.print(as_terminal(show(listing, "aaaaaaaa")))
    assert "<script>[bold] next" in console.file.getvalue()
    assert "\x1b" not in console.file.getvalue()
    assert of(reader.records()[0], row="../../x").name.startswith("verifications/other-0-")


def test_a_reproduction_is_equal_or_says_how_it_is_not(reader: Any, listing: Listing) -> None:
    records = reader.records()
    same = compare_results(records, records)
    assert verdict(same, [])[0]
    for factor, different, reproduced in (
        (1 + 1e-7, [], False),
        (1 + 1e-7, ["hardware"], True),
        (1.1, ["hardware"], False),
    ):
        measured = [each.model_copy(update={"value": each.value * factor}) for each in records[0].measured]
        lines = compare_results(records, [records[0].model_copy(update={"measured": measured}), records[1]])
        unequal = [line for line in lines if not line.equal]
        assert [line.relative for line in unequal] == pytest.approx([factor - 1] * 2, rel=1e-6)
        ok, sentence = verdict(lines, different)
        assert ok is reproduced
        assert "hardware" in sentence or not different
    gone = compare_results(records, records[1:])
    assert not verdict(gone, ["hardware"])[0]
    assert {line.again for line in gone if line.record.endswith("#0")} == {None}
