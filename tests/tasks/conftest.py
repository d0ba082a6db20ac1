"""A tiny language: text, tokenizer and random models that know it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tasks.tokenizer import train

WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "sat",
    "ran",
    "on",
    "under",
    "mat",
    "hill",
    "red",
    "small",
    "and",
    "then",
    ",",
    ".",
    "quickly",
]


@pytest.fixture(scope="session")
def documents() -> list[str]:
    draw = random.Random(0)
    return [" ".join(draw.choices(WORDS, k=40)) for _ in range(12)]


@pytest.fixture(scope="session")
def tokenizer(documents: list[str]) -> Any:
    return train(documents, 290)


@pytest.fixture
def model() -> Any:
    """Random GPT-2 with 32 positions, weights large enough that its predictions are far from uniform."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=290,
        n_embd=16,
        n_layer=2,
        n_head=2,
        n_positions=32,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config).eval()


@pytest.fixture
def write_split(tmp_path: Path) -> Callable[..., Path]:
    """Write columns as a split of a data set of a mirror, and return the mirror."""

    def write(repo: str, config: str, split: str, **columns: Sequence[Any]) -> Path:
        import pyarrow as pa
        import pyarrow.parquet as pq

        directory = tmp_path / "mirror" / "datasets" / repo / config
        directory.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({name: list(rows) for name, rows in columns.items()}), directory / f"{split}-0.parquet")
        return tmp_path / "mirror"

    return write


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub may not be asked and its cache is empty."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "/nonexistent")
