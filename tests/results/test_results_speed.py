"""The speed card on the board, in full, as CSV, and as older records have it."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from rich.console import Console, RenderableType

from results.board import board
from results.json_view import dumps
from results.load import read_record
from results.page import page
from results.record import Record
from results.show import as_json, as_terminal, show
from results.speed_card import FormSpeed, SpeedCard, SpeedNoise
from results.speed_view import latency
from results.table import as_csv, markdown, terminal

SCHEMA_1 = {
    "hardware": "2 x CPU",
    "latency_ms": 6.5,
    "throughput_tokens_per_s": 41000.0,
    "materialised_latency_ms": 9.0,
    "materialised_throughput_tokens_per_s": 39000.0,
    "peak_memory_bytes": 5_000_000,
}


def printed(renderable: RenderableType) -> str:
    console = Console(width=200, file=io.StringIO(), color_system=None)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def card(ours: float, theirs: float | None, noise: float | None) -> SpeedCard:
    def form(ms: float) -> FormSpeed:
        return FormSpeed(prefill_ms=50, decode_ms=ms, prefill_tokens_per_s=100)

    found = None if noise is None else SpeedNoise(prefill=0, decode=noise, prefill_throughput=0, decode_throughput=0)
    return SpeedCard(hardware="x", factorised=form(ours), materialised=form(theirs) if theirs else None, noise=found)


@pytest.mark.parametrize(
    ("speed", "text"),
    [
        (card(6, 9, 0.03), "6 < 9 ms ±3 %"),
        (card(9, 6, 0.03), "9 > 6 ms ±3 %"),
        (card(9.1, 9, 0.03), "9.1 ≈ 9 ms ±3 %"),
        (card(9.1, 9, 0.004), "9.1 > 9 ms ±0.4 %"),
        (card(9, None, 1.2), "9 ms ±120 %"),
        (card(9, 8, None), "9 | 8 ms"),
    ],
)
def test_a_difference_within_the_noise_is_none(speed: SpeedCard, text: str) -> None:
    assert latency(speed) == text


def test_every_rendering_has_both_forms_and_the_noise(finished: Any) -> None:
    found = board(finished)
    for text in (printed(terminal(found)), markdown(found).replace("&lt;", "<"), page(found).replace("\\u003c", "<")):
        assert "8.08 < 9 ms ±3 %" in text
        assert "measurements of one model differ by" in " ".join(text.split())
    assert '"speed: each further token","8.08 ms (p99 16.2) | 9 ms (p99 18) ±3 %"]' in page(found)
    shown = show(finished, "00aaaaaa")
    lines = printed(as_terminal(shown)).splitlines()
    assert [line.split() for line in lines if line.startswith("each further token")] == [
        ["each", "further", "token", "8.08", "ms", "(p99", "16.2)", "9", "ms", "(p99", "18)", "±3", "%"]
    ]
    assert "cpu, 2 threads, float32; 40 rounds of 32 tokens, 12 at batch 16" in " ".join(lines)
    assert json.loads(as_json(shown))["speed"]["noise"]["decode"] == 0.03


def test_csv_has_every_figure_and_nothing_for_what_was_not_measured(finished: Any) -> None:
    lines = {line["row"]: line for line in csv.DictReader(io.StringIO(as_csv(board(finished))))}
    line = lines["00aaaaaa"]
    assert float(line["decode_ms"]) == pytest.approx(8.08)
    assert (line["materialised_decode_ms"], line["decode_noise"], line["load_s"]) == ("9.0", "0.03", "0.25")
    assert (line["energy_j_per_token"], lines["30aaaaaa"]["decode_ms"]) == ("", "")


def old(record: Record) -> dict[str, Any]:
    return {**record.model_dump(mode="json"), "schema_version": 1, "speed": SCHEMA_1}


def test_a_record_of_schema_1_keeps_its_figures(reader: Any, sweep: Any) -> None:
    record = read_record(old(sweep.add("aaaaaaaa", "prune")), "records/x.json")
    speed = record.speed
    assert speed is not None
    assert (speed.factorised.prefill_ms, speed.factorised.prefill_tokens_per_s) == (6.5, 41000)
    assert speed.materialised is not None
    assert (speed.materialised.prefill_ms, speed.materialised.prefill_tokens_per_s) == (9, 39000)
    assert (speed.factorised.peak_memory_bytes, speed.factorised.decode_ms, speed.noise) == (5_000_000, None, None)
    reader.clear()
    reader.add(record)
    assert "6.5 | 9 ms prefill" in printed(terminal(board(reader)))
    assert "by schema 1: all logits, no cache" in printed(as_terminal(show(reader, "aaaaaaaa")))
    assert json.loads(dumps(board(reader)))["tabs"][0]["groups"][0]["rows"][0]["speed"]["settings"] is None
    assert "2 x CPU" in as_csv(board(reader))
    assert "by schema 1" in page(board(reader))


def test_a_record_of_schema_1_without_speed_is_read(sweep: Any) -> None:
    data = old(sweep.add("aaaaaaaa", "prune", status="failed", reason="boom")) | {"speed": None}
    assert read_record(data, "records/x.json").speed is None
