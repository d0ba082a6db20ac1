"""The memory of a training stage: the estimate against what torch allocates, and what is done where it does not fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import memory_peaks
import numpy as np
import pytest
import torch
from engine_fixture import model, run
from transformers import LlamaConfig, LlamaForCausalLM

from harness.engine.batches import TokenBatches
from harness.engine.memory import saved_bytes, workload
from harness.engine.objective import LanguageModelObjective
from harness.engine.preflight import available_bytes
from harness.engine.without_values import meta_copy
from harness.stage import Execution, OutOfMemory, Ranks
from methods.interface import Tap
from methods.recipe import Losses, Optimisation

SHAPE = {"vocab_size": 1024, "n_embd": 64, "n_layer": 4, "n_head": 4, "n_positions": 64}
TAPS = [
    Tap(teacher="transformer.h.1", student="transformer.h.1"),
    Tap(teacher="transformer.h.0.attn", student="transformer.h.0.attn", kind="attention", loss="kl"),
]
FP32 = Optimisation(learning_rate=1e-3)
TAUGHT = Losses(ce=0.5, kd=0.5, taps=0.1)


def batches(length: int = 64) -> TokenBatches:
    return TokenBatches(np.random.default_rng(0).integers(0, 1024, 4000), length, 16 * length, seed=0)


def objective(losses: Losses, **changes: Any) -> LanguageModelObjective:
    teacher = model(1, **SHAPE) if losses.needs_teacher else None
    return LanguageModelObjective(model(0, **(SHAPE | changes)), teacher, losses, TAPS)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["zero 2, checkpointing", "taught"], marks=pytest.mark.distributed),
        pytest.param(list(memory_peaks.CASES), marks=[pytest.mark.slow, pytest.mark.timeout(300)]),
    ],
    ids=["some", "all"],
)
def test_the_estimate_is_near_what_the_process_takes(names: list[str]) -> None:
    path = os.pathsep.join(sys.path)
    environment = {**os.environ, "PYTHONPATH": path, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    script = [sys.executable, "-W", "ignore", memory_peaks.__file__, *names]
    ended = subprocess.run(script, env=environment, capture_output=True, text=True, check=True)
    peaks = json.loads(ended.stdout.splitlines()[-1])
    assert set(peaks) == set(names)
    for name, (estimated, measured) in peaks.items():
        assert 0.8 <= estimated / measured <= 1.3, (name, estimated, measured)


def llama() -> Any:
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config)


@pytest.mark.parametrize("build", [lambda: model(0, n_positions=32), llama], ids=["gpt2", "llama"])
def test_what_is_saved_without_values_is_what_is_saved_with_them(build: Any) -> None:
    there = build().train()
    known = {parameter.untyped_storage().data_ptr() for parameter in there.parameters()}
    saved: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = there.base_model(input_ids=torch.zeros(3, 32, dtype=torch.int64), use_cache=False)
    assert output.last_hidden_state.requires_grad
    estimated, _ = saved_bytes(meta_copy(there), 3, 32)
    assert estimated == pytest.approx(sum(saved.values()), rel=0.03)


def test_a_copy_without_values_has_the_same_modules_and_ties() -> None:
    there = model(0)
    copy = meta_copy(there)
    assert all(parameter.is_meta for parameter in copy.parameters())
    assert [name for name, _ in copy.named_parameters()] == [name for name, _ in there.named_parameters()]
    assert copy.lm_head.weight is copy.transformer.wte.weight
    assert not next(there.parameters()).is_meta


def test_state_is_shared_by_workers_as_zero_says() -> None:
    target, data = objective(TAUGHT), batches()
    params = sum(parameter.numel() for parameter in target.student.parameters())

    def parts(world: int, **execution: Any) -> Any:
        return workload(target, data, FP32, Execution(**execution), Ranks(0, world)).estimate(1).parts

    alone = parts(4)
    assert (alone["weights"], alone["gradients"], alone["optimiser"]) == (4 * params, 4 * params, 8 * params)
    one, two, three = (parts(4, zero_stage=stage) for stage in (1, 2, 3))
    assert one["optimiser"] == two["optimiser"] == three["optimiser"] == 3 * params
    assert one["gradients"] == 4 * params
    assert two["gradients"] == three["gradients"] == params
    assert parts(4, zero_stage=3, shard_teacher=True)["teacher"] == alone["teacher"] / 4
    on_gpu = workload(target, data, FP32, Execution(gpus=1, zero_stage=1, offload=True), Ranks()).estimate(1)
    assert "optimiser" not in on_gpu.parts
    assert on_gpu.host_bytes == 12 * params


class TestPreflight:
    """What happens at the start of training on a machine with little memory."""

    def trained(self, monkeypatch: pytest.MonkeyPatch, rows: float, **execution: Any) -> int:
        """The micro-batch taken where there is memory for so many rows of a micro-batch."""
        target, data = objective(Losses()), batches()
        load = workload(target, data, FP32, Execution(), Ranks())
        sizes = [load.estimate(micro).total_bytes for micro in (1, 2)]
        held = sum(4 * parameter.numel() for parameter in target.student.parameters())
        free = round(sizes[0] + (rows - 1) * (sizes[1] - sizes[0])) - held
        monkeypatch.setattr("harness.engine.preflight.available_bytes", lambda: free)
        return run(target, 1, FP32, data, execution=Execution(**execution)).micro_batch

    def test_the_micro_batch_chosen_is_the_largest_that_fits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.trained(monkeypatch, 100) == 16
        assert self.trained(monkeypatch, 5) == 4

    def test_one_that_was_asked_for_is_refused_and_a_smaller_one_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(
            OutOfMemory, match=r"micro_batch 16 needs about .* a worker \(.*; try micro_batch: 4"
        ) as error:
            self.trained(monkeypatch, 5, micro_batch=16)
        assert error.value.smaller == 4
        assert error.value.failure_class == "out_of_memory"

    def test_nothing_fits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(OutOfMemory, match=r"micro_batch 1 needs .*; try activation_checkpointing: true") as error:
            self.trained(monkeypatch, 0.9)
        assert error.value.smaller is None
        with pytest.raises(OutOfMemory, match="no change of its resources makes it fit"):
            self.trained(monkeypatch, -10)

    def test_a_declared_limit_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(OutOfMemory, match="out of memory before the start"):
            self.trained(monkeypatch, 100, memory_bytes=2**20)


def test_there_is_memory_here() -> None:
    assert 0 < available_bytes() < 2**50
