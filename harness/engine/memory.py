"""What a training stage needs of memory, per worker and before it starts.

    peak = weights + gradients + optimiser + teacher + what one micro-batch adds

The first four are arithmetic on parameter counts, ZeRO stage and number of workers. What autograd keeps of a
micro-batch is not guessed: a copy of the student on the meta device runs forward once, and the tensors that are saved
for the backward pass are counted. Process, libraries and kernels' workspaces are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from harness.engine.deepspeed_engine import configuration
from harness.engine.taps import Recording, recording
from harness.engine.vocabulary import CHUNK_ELEMENTS
from harness.engine.without_values import WithoutValues
from harness.stage import Execution
from methods.families import architecture
from methods.interface import Tap
from methods.recipe import Losses, Optimisation

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BUCKET_ELEMENTS = 500_000_000
"""DeepSpeed's default of `reduce_bucket_size`: gradients that are reduced together."""
LIVE_ELEMENTS = 1_000_000_000
"""DeepSpeed's default of `stage3_max_live_parameters`: gathered at once under ZeRO-3."""
CHUNK_TENSORS = 5
"""Tensors of `CHUNK_ELEMENTS` in fp32 that the vocabulary's losses hold at once."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Bytes per worker by what they are for; `beside` is host memory that a stage on a GPU needs besides."""

    parts: Mapping[str, int]
    beside: int = 0

    @property
    def total_bytes(self) -> int:
        return sum(self.parts.values())


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A training stage as far as its memory goes. Models are on the meta device; their parameters' type is no matter."""

    student: PreTrainedModel
    teacher: PreTrainedModel | None = None
    losses: Losses = field(default_factory=Losses)
    taps: Sequence[Tap] = ()
    row_tokens: int
    rows: int
    """Of the global batch."""
    optimisation: Optimisation
    execution: Execution
    workers: int = 1
    teacher_sharded: bool = False
    """The teacher's weights are partitioned over the workers under ZeRO-3."""

    @property
    def on_gpu(self) -> bool:
        return bool(self.execution.gpus)

    def estimate(self, micro: int) -> Estimate:
        """The peak with `micro` rows in a forward pass."""
        state, beside = self._state(micro)
        return Estimate(parts=state | self._micro_batch(micro), beside=beside)

    def _state(self, micro: int) -> tuple[dict[str, int], int]:
        """Bytes that are there throughout the training, and those of them that a GPU's stage keeps on the host."""
        config = configuration(self.optimisation, self.execution, rows=self.rows, micro=micro, accumulation=1)
        zero = config["zero_optimization"]
        stage, width = zero["stage"], self._element_bytes
        all_, trained = _counts(self.student)
        share = 1 / self.workers
        gathered = min(all_, zero.get("stage3_max_live_parameters", LIVE_ELEMENTS))
        optimiser = trained * (8 if stage == 0 else 12 * share)
        bucket = int(zero.get("reduce_bucket_size", BUCKET_ELEMENTS))
        state = {
            "weights": all_ * width if stage < 3 else (all_ * share + gathered) * width,
            "gradients": trained * (width if stage < 2 else width * share),
            "optimiser": optimiser,
            "buckets": 0 if stage == 0 else (bucket if self.on_gpu else min(bucket, trained)) * width,
            "teacher": self._teacher_bytes,
            "kept": 0 if self.on_gpu or width == 4 else all_ * 4,
        }
        offloaded = optimiser if stage and self.on_gpu and "offload_optimizer" in zero else 0
        state["optimiser"] -= offloaded
        return {name: round(value) for name, value in state.items()}, round(offloaded)

    @property
    def _element_bytes(self) -> int:
        return 2 if self.optimisation.precision == "bf16" else 4

    @property
    def _teacher_bytes(self) -> float:
        if self.teacher is None:
            return 0
        return _counts(self.teacher)[0] * self._element_bytes / (self.workers if self.teacher_sharded else 1)

    def _micro_batch(self, micro: int) -> dict[str, int]:
        """Bytes that a forward and backward pass over `micro` rows adds."""
        saved, recorded = saved_bytes(self.student, micro, self.row_tokens, self.taps)
        dense = architecture(self.student.config)
        positions = micro * self.row_tokens
        stream = positions * dense.width * self._element_bytes
        if self.execution.activation_checkpointing:
            saved = saved // len(dense.blocks) + len(dense.blocks) * stream
        found = {"activations": saved, "taps": 2 * recorded}
        if self._predicts_tokens:
            head = dense.vocab * dense.width * self._element_bytes
            trains = 2 if self.student.get_output_embeddings().weight.requires_grad else 0
            found["vocabulary"] = trains * head + (2 if self.losses.kd else 1) * stream + CHUNK_TENSORS * 4 * CHUNK_ELEMENTS
        return found

    @property
    def _predicts_tokens(self) -> bool:
        return self.student.get_output_embeddings() is not None


def saved_bytes(student: PreTrainedModel, rows: int, tokens: int, taps: Sequence[Tap] = ()) -> tuple[int, int]:
    """Bytes that autograd keeps of a forward pass up to the last hidden states, and bytes of what `taps` record.

    `student` is on the meta device. Storages are counted once, parameters not at all.
    """
    parameters = {parameter.untyped_storage()._cdata for parameter in student.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    ids = torch.zeros(rows, tokens, dtype=torch.int64, device="meta")
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with WithoutValues(), recording(student, taps, "student") as seen, hooks:
        output = student.base_model(input_ids=ids, use_cache=False)
    del output
    return sum(kept.values()), _recorded(seen)


def _recorded(seen: Recording) -> int:
    queries_keys = [tensor for each in seen.attention.values() for tensor in (each.query_BHTD, each.key_BHTD)]
    return sum(tensor.numel() * tensor.element_size() for tensor in (*seen.outputs.values(), *queries_keys))


def _counts(model: PreTrainedModel) -> tuple[int, int]:
    """Parameters, and those that train."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trains in sizes if trains)


def fits(objective: Any, batches: Any, optimisation: Optimisation, execution: Execution, ranks: Any, micro: int) -> Estimate:
    from harness.engine.without_values import meta_copy
    dtype = torch.bfloat16 if optimisation.precision == "bf16" else torch.float32
    s = meta_copy(objective.student, dtype).train()
    t = meta_copy(objective.teacher) if objective.teacher is not None else None
    return Workload(student=s, teacher=t, losses=objective.losses, taps=objective.taps, row_tokens=batches.row_tokens, rows=batches.rows, optimisation=optimisation, execution=execution, workers=ranks.world).estimate(micro)
