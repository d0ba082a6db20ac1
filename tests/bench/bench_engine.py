"""Cost of the engine per step, against a plain torch loop in the same run: `python tests/bench/bench_engine.py`."""

from __future__ import annotations

import time

import numpy as np
import torch
import torch.nn.functional as F
from transformers import GPT2Config, GPT2LMHeadModel

from harness.engine.batches import TokenBatches
from harness.engine.deepspeed_engine import Engine
from harness.engine.objective import LanguageModelObjective
from harness.stage import Execution, Ranks
from methods.recipe import Losses, Optimisation

LENGTH, ROWS, ROUNDS = 128, 16, 12


def model() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=4096, n_embd=128, n_layer=6, n_head=4, n_positions=LENGTH, resid_pdrop=0.0, embd_pdrop=0.0,
            attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip


def plain_step(student, teacher, optimizer, batch):
    logits = student(batch["input_ids"], use_cache=False).logits.flatten(0, 1)
    loss = F.cross_entropy(logits, batch["targets"].flatten())
    if teacher is not None:
        with torch.no_grad():
            theirs = F.softmax(teacher(batch["input_ids"], use_cache=False).logits.flatten(0, 1) / 2, -1)
        loss = loss + 4 * F.kl_div(F.log_softmax(logits / 2, -1), theirs, reduction="batchmean")
    loss.backward()
    torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    loss.item()


def compare(kd: float, zero_stage: int) -> None:
    """Alternate the two loops and print the ratio of their median times."""
    data = TokenBatches(np.random.default_rng(0).integers(0, 4096, 50_000), LENGTH, LENGTH * ROWS, seed=0)
    student, teacher = model(), model().eval() if kd else None
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3, fused=True)
    objective = LanguageModelObjective(model(), teacher, Losses(kd=kd))
    execution = Execution(zero_stage=zero_stage)
    engine = Engine(objective, Optimisation(learning_rate=1e-3), execution, Ranks(), rows=ROWS, micro=ROWS)
    times: dict[str, list[float]] = {"engine": [], "plain": []}
    for step in range(ROUNDS):
        parts = data.micro_batches(step, rank=0, world=1, micro=ROWS)
        started = time.perf_counter()
        engine.step(parts, 1e-3)
        between = time.perf_counter()
        plain_step(student, teacher, optimizer, parts[0].tensors)
        times["engine"].append(between - started)
        times["plain"].append(time.perf_counter() - between)
    engine.close()
    ours, theirs = (float(np.median(times[name][2:])) for name in ("engine", "plain"))
    print(f"kd={kd:g} zero={zero_stage}: engine {ours:.3f} s, plain torch {theirs:.3f} s, ratio {ours / theirs:.2f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for zero_stage in (0, 2, 3):
        for kd in (0.0, 1.0):
            compare(kd, zero_stage)
