"""Training text: documents of the train and validation splits, one Parquet file each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from harness.stage import Context
from tasks.corpora import Corpus

SPLITS = ("train", "validation")


def run(context: Context) -> Mapping[str, Any]:
    """Write `train.parquet` and `validation.parquet` with a column `text`."""
    corpus = Corpus(**context.params["corpus"], directory=context.params["directory"])
    counts = {}
    for split in SPLITS:
        documents = corpus.documents(split, context.mirror)
        pq.write_table(pa.table({"text": documents}), context.output / f"{split}.parquet")
        counts[f"{split}_documents"] = len(documents)
        counts[f"{split}_characters"] = sum(map(len, documents))
    return counts
