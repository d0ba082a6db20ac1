"""Evaluation is the same for any batch and any number of workers: a table of differences over gloo."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from micro_sweep import WORDS

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(180)]

BATCHES = (1, 4, 16)
STRIDED, NOT_SHARED = "local.token_ppl.v1", "local.lm_eval.v1"

WORKER = """
import json, os, sys, warnings
from pathlib import Path
from harness.stage import Context, Execution, NoCheckpoints, Ranks, silent
from harness.stages import evaluate
from tasks import registry

warnings.filterwarnings("ignore")
root, rank, world = Path(sys.argv[1]), int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
for name, batch in json.loads(sys.argv[2]):
    output = root / f"{name}-{world}-{batch}"
    output.mkdir(exist_ok=True)
    said = []
    result = evaluate.run(Context(
        params={"target": registry.resolve(name), "task": name, "text": str(root / "text.txt")},
        inputs={"model": root}, output=output,
        execution=Execution(workers=world, micro_batch=batch, collective_timeout_s=60), ranks=Ranks(rank, world, rank),
        checkpoints=NoCheckpoints(), progress=silent, warn=said.append,
    ))
    assert (rank == 0) == bool(result), result
    if rank == 0:
        (output / "result.json").write_text(json.dumps(result | {"said": said}))
"""


def launch(root: Path, world: int) -> None:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    asked = [*((STRIDED, batch) for batch in BATCHES), (NOT_SHARED, 4)]
    gang = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    gang["PYTHONPATH"] = str(Path(__file__).parents[2])
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(root), json.dumps(asked)], env=os.environ | gang | {"RANK": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(world)
    ]  # fmt: skip
    for worker in workers:
        said, _ = worker.communicate(timeout=150)
        assert worker.returncode == 0, said[-4000:]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int, int], Any]:
    """(protocol, workers, batch) -> result and items."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from methods import student
    from tasks.tokenizer import train

    root = tmp_path_factory.mktemp("gang")
    text = " ".join(WORDS * 30)
    (root / "text.txt").write_text(text)
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=270, n_embd=16, n_layer=2, n_head=2, n_positions=32, bos_token_id=0, eos_token_id=0)
    student.save(GPT2LMHeadModel(config), root / "model", train([text], 270))
    for world in (1, 2):
        launch(root, world)
    results = {}
    for path in root.glob("*/result.json"):
        name, world, batch = path.parent.name.split("-")
        items = pq.read_table(path.with_name("items.parquet")).to_pydict()
        results[name, int(world), int(batch)] = (json.loads(path.read_text()), items)
    return results


def test_batches_and_workers_change_nothing_but_rounding(found: Any) -> None:
    reference, items = found[STRIDED, 1, 1]
    table = {}
    for world in (1, 2):
        for batch in BATCHES:
            result, theirs = found[STRIDED, world, batch]
            assert theirs["item"] == items["item"]
            each = np.abs(np.array(theirs["nll"]) / np.array(items["nll"]) - 1).max()
            table[world, batch] = (each, abs(result["metrics"]["ppl"] / reference["metrics"]["ppl"] - 1))
    print("\nworkers  batch  largest relative difference of a window's nll, of the perplexity")
    for (world, batch), (nll, ppl) in table.items():
        print(f"{world:7}  {batch:5}  {nll:.1e}, {ppl:.1e}")
    assert max(max(pair) for pair in table.values()) <= 1e-6


def test_what_cannot_be_shared_is_measured_by_the_first_worker_and_said(found: Any) -> None:
    one, two = (found[NOT_SHARED, world, 4][0] for world in (1, 2))
    assert two["metrics"] == one["metrics"]
    assert one["said"] == []
    assert two["said"] == [f"{NOT_SHARED} is measured by one of 2 workers: it is not shared"]
