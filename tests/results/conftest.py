"""A store in memory, and records that look like a small finished sweep."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from browser_fixture import big, big_html, browser, open_page  # noqa: F401

from results.record import Cell, Failure, Measured, Record, SizeCard, StageCost
from results.speed_card import FormSpeed, SpeedCard, SpeedNoise, SpeedSettings

PPL = "wikitext2.word_ppl.v1"
COLA = "glue.cola.v1"


class FakeReader:
    """Satisfies `results.reader.Reader` from a list and a dict."""

    def __init__(self, records: Sequence[Record] = (), files: Mapping[str, bytes] | None = None) -> None:
        self._records, self.files = list(records), dict(files or {})

    def records(self) -> list[Record]:
        return list(self._records)

    def read_bytes(self, name: str, /) -> bytes:
        if name not in self.files:
            raise FileNotFoundError(name)
        return self.files[name]

    def put_items(self, name: str, columns: Mapping[str, Any]) -> tuple[str, str]:
        """Store a Parquet file; returns its path and checksum, as a measurement names them."""
        import pyarrow
        import pyarrow.parquet

        stream = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.table(dict(columns)), stream)
        self.files[name] = stream.getvalue()
        return name, hashlib.sha256(stream.getvalue()).hexdigest()

    def add(self, record: Record) -> None:
        self._records.append(record)

    def replace(self, old: Record, new: Record) -> None:
        self._records[self._records.index(old)] = new

    def clear(self) -> None:
        self._records.clear()


class Sweep:
    """Writes records of one sweep into a fake store; `quality` 0 is the teacher's, larger is worse."""

    def __init__(self, reader: FakeReader, num_items: int = 60) -> None:
        self.reader, self.num_items = reader, num_items
        rng = np.random.default_rng(0)
        self.words = rng.integers(80, 400, num_items)
        self.base = 3.4 + 0.4 * rng.standard_normal(num_items)
        self.label = rng.integers(0, 2, num_items)
        self.hard = rng.random(num_items)

    def measurements(self, name: str, quality: float, seed: int, data: str) -> list[Measured]:
        rng = np.random.default_rng([*name.encode(), seed])
        item = [f"page-{i}" for i in range(self.num_items)]
        nll = self.words * (self.base + quality + 0.01 * rng.standard_normal(self.num_items) + 0.004 * seed)
        path, digest = self.reader.put_items(f"{name}-{seed}-ppl", {"item": item, "nll": nll, "words": self.words})
        ppl = Measured(
            protocol=PPL, metric="word_perplexity", value=float(np.exp(nll.sum() / self.words.sum())), unit="ppl",
            higher_is_better=False, main=True, data=data, items_path=path, items_sha256=digest, stage_key="e" * 64,
        )  # fmt: skip
        correct = self.hard + 0.2 * rng.random(self.num_items) < 0.95 - 0.4 * quality
        guess = np.where(correct, self.label, 1 - self.label)
        columns = {"item": item, "prediction": guess, "label": self.label, "correct": correct}
        path, digest = self.reader.put_items(f"{name}-{seed}-cola", columns)
        mcc = Measured(
            protocol=COLA, metric="matthews", value=float(np.corrcoef(guess, self.label)[0, 1]), unit="",
            higher_is_better=True, main=True, data="sha256:cola", items_path=path, items_sha256=digest,
            stage_key="f" * 64,
        )  # fmt: skip
        return [ppl, mcc]

    def add(
        self,
        row: str,
        method: str,
        *,
        seed: int = 0,
        quality: float = 0.1,
        budget: str | None = "params=0.66",
        recipe: str = "shared",
        status: str = "complete",
        reason: str = "",
        data: str = "sha256:wikitext2",
        created: str = "2026-01-01T00:00:00Z",
        fields: Mapping[str, Any] | None = None,
        log_tail: str = "",
        **changes: Any,
    ) -> Record:
        fraction = float(budget.split("=")[1]) if budget else 1.0
        complete = status == "complete"
        steps = range(0, 2000, 50)
        falls = [3.4 + quality + 5 * float(np.exp(-s / 300)) for s in steps]
        curve = [
            {"step": s, "tokens": 4096.0 * s, "loss": loss, "ce": 1.1 * loss, "kd": 0.9 * loss}
            for s, loss in zip(steps, falls, strict=True)
        ]
        values: dict[str, Any] = {
            "row": row,
            "sweep": "demo",
            "cell": Cell(
                teacher="gpt2", method=method, fields=dict(fields or {}), budget=budget, recipe=recipe,
                recipe_digest="d" * 8, seed=seed,
            ),
            "status": status,
            "reason": reason,
            "measured": self.measurements(row, quality, seed, data) if complete else [],
            "size": card(round(124_439_808 * fraction * (1 + 0.001 * (len(method) % 4)))) if complete else None,
            "speed": speed_card(6.1 + 3 * fraction) if complete else None,
            "costs": [
                StageCost(stage="teacher", key="t" * 64, worker_s=600),
                StageCost(stage="distill", key=f"{row}-{seed}", worker_s=1800.5, tokens=10_000_000, flops=4e15),
            ],
            "curve": curve if recipe != "none" and budget and complete else [],
            "stages": {"teacher": "t" * 64, "evaluate": "e" * 64},
            "provenance": {"created_at": created, "commit": "0123abc", "dirty": False, "versions": {"torch": "2.9"}},
            "failure": None,
        }  # fmt: skip
        if status == "failed":
            values["failure"] = Failure(stage="distill", failure_class="diverged", reason=reason, log_tail=log_tail)
        record = Record(**{**values, **changes})
        self.reader.add(record)
        return record


def speed_card(decode_ms: float) -> SpeedCard:
    """As of a machine whose noise is 3 %; the dense form takes 9 ms a token."""
    ours, dense = (
        FormSpeed(
            prefill_ms=40, prefill_p99_ms=52.5, decode_ms=ms, decode_p99_ms=2 * ms, prefill_tokens_per_s=41_000,
            decode_tokens_per_s=900, peak_memory_bytes=2**31, load_s=0.25,
        )
        for ms in (decode_ms, 9.0)
    )  # fmt: skip
    return SpeedCard(
        hardware="16 cores, H100",
        factorised=ours,
        materialised=dense,
        noise=SpeedNoise(prefill=0.02, decode=0.03, prefill_throughput=0.01, decode_throughput=0.05),
        settings=SpeedSettings(
            device="cpu", threads=2, dtype="float32", prompt_tokens=128, generated_tokens=32, batch=16,
            warm_up_rounds=1, latency_rounds=40, throughput_rounds=12,
        ),
    )  # fmt: skip


def card(params: int) -> SizeCard:
    return SizeCard(
        params=params,
        params_fraction=params / 124_439_808,
        params_without_embedding=params - 39_000_000,
        params_without_output=params,
        stored_bytes=4 * params,
        materialised_bytes=4 * 124_439_808,
        macs_per_token=params,
    )


@pytest.fixture
def reader() -> FakeReader:
    return FakeReader()


@pytest.fixture
def sweep(reader: FakeReader) -> Sweep:
    return Sweep(reader)


@pytest.fixture
def finished(reader: FakeReader, sweep: Sweep) -> FakeReader:
    """Identity, three methods at two budgets with two seeds, one training-free row, one failed, one skipped."""
    sweep.add("00000000", "identity", budget=None, recipe="none", quality=0.0)
    for place, budget in enumerate(("params=0.66", "params=0.33")):
        for number, (method, quality) in enumerate((("low_rank", 0.30), ("kronecker", 0.31), ("prune", 0.6))):
            for seed in (0, 1):
                sweep.add(f"{place}{number}aaaaaa", method, seed=seed, budget=budget, quality=quality + 0.4 * place)
    sweep.add("20aaaaaa", "low_rank", fields={"layers": "mlp"}, recipe="none", quality=0.9)
    sweep.add("30aaaaaa", "drop_layers", status="skipped", reason="nearest is 0.71")
    sweep.add("31aaaaaa", "tensor_train", status="failed", reason="loss is not finite at step 17", log_tail="Nan!")
    return reader


@pytest.fixture
def new_reader() -> Callable[..., FakeReader]:
    return FakeReader
