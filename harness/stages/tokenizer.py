"""A tokenizer for a teacher trained from scratch: byte-level BPE learned on the corpus's training split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow.parquet as pq

from harness.stage import Context
from tasks.tokenizer import train


def run(context: Context) -> Mapping[str, Any]:
    """Write `model/` with the tokenizer's files."""
    documents = pq.read_table(context.inputs["corpus"] / "train.parquet")["text"].to_pylist()
    tokenizer = train(documents, context.params["vocab_size"])
    tokenizer.save_pretrained(context.output / "model")
    return {"vocab_size": len(tokenizer)}
