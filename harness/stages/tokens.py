"""The corpus as one stream of token ids per split, an end-of-text token after every document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from transformers import AutoTokenizer

from harness.stage import Context
from tasks.packing import pack


def run(context: Context) -> Mapping[str, Any]:
    """Write `train.npy` and `validation.npy` with the tokenizer found in the `tokenizer` input."""
    tokenizer = AutoTokenizer.from_pretrained(context.inputs["tokenizer"] / "model")
    counts = {}
    for split in ("train", "validation"):
        documents = pq.read_table(context.inputs["corpus"] / f"{split}.parquet")["text"].to_pylist()
        ids = pack(documents, tokenizer)
        np.save(context.output / f"{split}.npy", ids, allow_pickle=False)
        counts[f"{split}_tokens"] = len(ids)
    return counts
