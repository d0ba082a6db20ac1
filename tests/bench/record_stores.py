"""Stores of synthetic records, of the size and shape that real ones have."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from results.record import Cell, Measured, Record, SizeCard, StageCost
from results.speed_card import FormSpeed, SpeedCard, SpeedNoise, SpeedSettings
from results.store import Store

METHODS = ("svd", "fwsvd", "asvd", "svd_llm", "kronecker", "tq", "tensor_train", "tensor_gpt", "dsee", "truncation")
PROTOCOLS = (("wikitext2.lm_eval.v1", "word_perplexity", False), ("wikitext103.v1", "word_ppl", False),
             ("glue.sst2.v1", "accuracy", True), ("glue.cola.v1", "matthews", True))  # fmt: skip
STAGES = ("teacher", "corpus", "tokens", "compress", "distill", "profile", "evaluate")
PARAMS = 124_439_808


def key(*parts: object) -> str:
    """A stage's key."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


def row_names(num_rows: int) -> list[tuple[str, str, str, str]]:
    """(teacher, budget, recipe, method) of each row: of each teacher 10 methods at 5 budgets, trained and not."""
    budgets = [f"params=0.{hundredths}" for hundredths in (80, 66, 50, 40, 33)]
    every = [
        (f"teacher-{teacher}", budget, recipe, method)
        for teacher in range(num_rows // 100 + 1)
        for budget in budgets
        for recipe in ("shared", "none")
        for method in METHODS
    ]
    return every[:num_rows]


def outcome(place: int, name: tuple[str, str, str, str], seed: int, number: int) -> Record:
    """One outcome of a cell; a later number is a later one. One cell in fifty has only failures."""
    teacher, budget, recipe, method = name
    rng = np.random.default_rng([place, seed, number])
    fraction, better = float(budget.partition("=")[2]), 0.05 * (place % 20)
    created = f"2026-{1 + number // 28:02d}-{1 + number % 28:02d}T00:{place % 60:02d}:{seed:02d}Z"
    keys = {stage: key(stage, place, seed, number) for stage in STAGES[3:]}
    keys |= {stage: key(stage, teacher) for stage in STAGES[:3]}
    measured = [
        Measured(
            protocol=protocol, metric=metric, unit="", higher_is_better=higher, main=True, data=key(protocol),
            value=float((0.9 - 0.1 * better if higher else 30 * (1 + better)) * (1 + 0.01 * rng.standard_normal())),
            when=when, stage_key=keys["evaluate"],
        )
        for protocol, metric, higher in PROTOCOLS
        for when in (("final", "before_training") if not higher else ("final",))
    ]  # fmt: skip
    params = round(PARAMS * fraction * (1 + 0.001 * (place % 7)))
    form = FormSpeed(prefill_ms=40.0, decode_ms=float(6 + rng.random()), prefill_tokens_per_s=41_000.0)
    curve = [
        {"step": float(s), "tokens": 4096.0 * s, "loss": float(3 + 5 * np.exp(-s / 300)), "ce": 3.1, "kd": 2.2}
        for s in range(0, 2000, 50)
    ]
    failed = (place + seed) % 50 == 0
    return Record(
        row=key(place)[:8],
        sweep="nightly",
        cell=Cell(
            teacher=teacher, method=method, fields={"layers": "mlp"} if place % 3 else {}, budget=budget, recipe=recipe,
            recipe_digest=key(recipe)[:8], seed=seed,
        ),
        status="failed" if failed else "complete",
        reason="distill: loss is not finite at step 17" if failed else "",
        measured=[] if failed else measured,
        size=SizeCard(
            params=params, params_fraction=params / PARAMS, params_without_embedding=params // 2,
            params_without_output=params, stored_bytes=4 * params, materialised_bytes=4 * PARAMS, macs_per_token=params,
        ),
        speed=SpeedCard(
            hardware="16 cores", factorised=form, materialised=form,
            noise=SpeedNoise(prefill=0.02, decode=0.03, prefill_throughput=0.01, decode_throughput=0.05),
            settings=SpeedSettings(
                device="cpu", threads=2, dtype="float32", prompt_tokens=128, generated_tokens=32, batch=16,
                warm_up_rounds=1, latency_rounds=40, throughput_rounds=12,
            ),
        ),
        costs=[StageCost(stage=stage, key=keys[stage], worker_s=60.5, tokens=10**6, flops=1e15) for stage in STAGES],
        curve=curve if recipe == "shared" and not failed else [],
        stages=keys,
        provenance={
            "created_at": created, "commit": key(number), "dirty": False, "python": "3.12.3", "hardware": "16 cores",
            "versions": {"torch": "2.9.1", "transformers": "5.0.0", "deepspeed": "0.18.2"},
            "execution": {stage: {"workers": 1, "cpus": 2, "hardware": "16 cores"} for stage in STAGES},
        },
    )  # fmt: skip


def fill(directory: Path, num_rows: int, num_seeds: int, num_outcomes: int) -> int:
    """Write a store of so many rows, seeds and outcomes of each cell; returns the bytes of its records."""
    Store(str(directory)).create()
    (directory / "records").mkdir(exist_ok=True)
    total = 0
    for place, name in enumerate(row_names(num_rows)):
        for seed in range(num_seeds):
            first = outcome(place, name, seed, 0)
            text = first.model_dump_json(indent=1)
            for number in range(num_outcomes):
                # Later outcomes differ in what is cheap to change here; building each anew would take minutes.
                created = f"2026-{1 + number // 28:02d}-{1 + number % 28:02d}"
                data = text.replace('"created_at": "2026-01-01', f'"created_at": "{created}').encode()
                (directory / "records" / f"{first.row}-{seed}-{key(number)[:12]}.json").write_bytes(data)
                total += len(data)
    return total
