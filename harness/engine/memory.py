"""What a training stage needs of memory, per worker and before it starts.

    peak = weights + gradients + optimiser + buckets + teacher + what a micro-batch adds

All but the last are arithmetic on parameter counts, ZeRO stage and number of workers W. With P parameters of which T
train, b bytes an element (4 in fp32, 2 in bf16) and bf16 never below stage 1:

    weights     P b                  stage 3: P b / W, and what is gathered at once
    gradients   T b                  stages 2 and 3: T b / W
    optimiser   8 T                  two moments; stages 1 to 3: 12 T / W, with an fp32 copy of the weights
    buckets     0                    stages 1 to 3: b x min(T, `reduce_bucket_size`); on a GPU the whole of it

What autograd keeps of a micro-batch is measured, not guessed: the student runs forward once on the meta device, and the
bytes saved for the backward pass are counted. The process, its libraries, kernels' workspaces and what the allocator
holds back are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from harness.engine.deepspeed_engine import configuration
from harness.engine.dropout import SampleDropout
from harness.engine.objective import LanguageModelObjective, Objective
from harness.engine.shares import Rows
from harness.engine.taps import Recording, recording
from harness.engine.vocabulary import BLOCK_ELEMENTS, CHUNK_ELEMENTS
from harness.engine.without_values import WithoutValues, meta_copy
from harness.stage import Execution, Ranks
from methods.families import Architecture, architecture
from methods.interface import Tap
from methods.recipe import Losses, Optimisation

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BUCKET_ELEMENTS = 500_000_000
"""DeepSpeed's default of `reduce_bucket_size`: gradients that are reduced together."""
LIVE_ELEMENTS = 1_000_000_000
"""DeepSpeed's default of `stage3_max_live_parameters`: weights gathered at once."""
BLOCK_TENSORS = 4
"""Tensors of `BLOCK_ELEMENTS` in fp32 between a block of logits and its gradient."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Bytes per worker by what they are for."""

    parts: Mapping[str, int]
    """Where the stage computes: weights, gradients, optimiser, buckets, teacher, activations, taps, vocabulary, and the
    fp32 copies that are kept of what does not train in fp32."""
    host_bytes: int
    """In host memory besides, for a stage that computes on a GPU."""

    @property
    def total_bytes(self) -> int:
        """The peak where the stage computes."""
        return sum(self.parts.values())


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A training stage as far as its memory goes; its models are on the meta device."""

    student: PreTrainedModel
    """In the precision and the mode that it trains in."""
    teacher: PreTrainedModel | None
    losses: Losses
    taps: Sequence[Tap]
    batch: Rows
    optimisation: Optimisation
    execution: Execution
    workers: int
    predicts_tokens: bool = True
    """False for a classifier."""

    def estimate(self, micro: int) -> Estimate:
        """The peak with `micro` rows in a forward pass."""
        parts = self._state() | self._micro_batch(micro)
        host = 0
        if self.execution.gpus:
            host = parts.pop("kept")
            if self.execution.offload and self._zero_stage:
                host += parts.pop("optimiser")
        return Estimate(parts={name: size for name, size in parts.items() if size}, host_bytes=host)

    def _state(self) -> dict[str, int]:
        """What is there throughout the training."""
        stage, share, b = self._zero_stage, 1 / self.workers, self._element_bytes
        sizes = [(parameter.numel(), parameter.requires_grad) for parameter in self.student.parameters()]
        everything, trained = sum(n for n, _ in sizes), sum(n for n, trains in sizes if trains)
        gathered = min(everything, self._zero("stage3_max_live_parameters", LIVE_ELEMENTS))
        bucket = self._zero("reduce_bucket_size", BUCKET_ELEMENTS)
        teacher = 0 if self.teacher is None else sum(parameter.numel() for parameter in self.teacher.parameters())
        return {
            "weights": round(b * (everything if stage < 3 else everything * share + gathered)),
            "gradients": round(b * trained * (1 if stage < 2 else share)),
            "optimiser": round(trained * (12 * share if stage else 8)),
            "buckets": b * (bucket if self.execution.gpus else min(bucket, trained)) if stage else 0,
            "teacher": round(b * teacher * (share if stage == 3 and self.execution.shard_teacher else 1)),
            "kept": 4 * (everything if b < 4 else everything - trained),
        }

    def _micro_batch(self, micro: int) -> dict[str, int]:
        """What forward and backward passes over `micro` rows add."""
        dense, positions = architecture(self.student.config), micro * self.batch.row_tokens
        saved, recorded = saved_bytes(
            self.student, micro, self.batch.row_tokens, self.taps, gpu=bool(self.execution.gpus)
        )
        lasting, passing = self._vocabulary(dense, positions) if self.predicts_tokens else (0, 0)
        if self.execution.activation_checkpointing:
            # One block is computed anew at a time, when the vocabulary's logits are gone.
            blocks = len(dense.blocks)
            saved = blocks * positions * dense.width * self._element_bytes + max(0, saved // blocks - passing)
        return {"activations": saved, "taps": 2 * recorded, "vocabulary": lasting + passing}

    def _vocabulary(self, dense: Architecture, positions: int) -> tuple[int, int]:
        """Bytes of the vocabulary's losses that last until the backward pass, and those of chunks of logits."""
        device, models = "cuda" if self.execution.gpus else "cpu", 2 if self.losses.kd else 1
        logits = min(CHUNK_ELEMENTS[device], positions * dense.vocab)
        trains = self.student.get_output_embeddings().weight.requires_grad
        lasting = models * positions * dense.width + (dense.vocab * dense.width if trains else 0)
        passing = models * logits * self._element_bytes + 4 * BLOCK_TENSORS * min(BLOCK_ELEMENTS[device], logits)
        return lasting * self._element_bytes, passing

    @property
    def _element_bytes(self) -> int:
        return 2 if self.optimisation.precision == "bf16" else 4

    @property
    def _zero_stage(self) -> int:
        return self._zero("stage", 0)

    def _zero(self, key: str, default: int) -> int:
        """A key of DeepSpeed's `zero_optimization`."""
        rows = self.batch.rows
        config = configuration(self.optimisation, self.execution, rows=rows, micro=1, accumulation=1)
        return int(config["zero_optimization"].get(key, default))


def workload(
    objective: Objective,
    batch: Rows,
    optimisation: Optimisation,
    execution: Execution,
    ranks: Ranks,
) -> Workload:
    """Copies of an objective's models without values, and how they are trained."""
    return Workload(
        student=as_trained(meta_copy(objective.student), optimisation),
        teacher=None if objective.teacher is None else meta_copy(objective.teacher),
        losses=objective.losses,
        taps=objective.taps,
        batch=batch,
        optimisation=optimisation,
        execution=execution,
        workers=ranks.world,
        predicts_tokens=isinstance(objective, LanguageModelObjective),
    )


def as_trained(student: PreTrainedModel, optimisation: Optimisation) -> PreTrainedModel:
    """A student without values, in the precision and the mode that it trains in; modified in place.

    Dropout keyed by sample becomes torch's own, which keeps as much for the backward pass.
    """
    for module in list(student.modules()):
        for name, child in module.named_children():
            if isinstance(child, SampleDropout):
                setattr(module, name, nn.Dropout(child.p))
    for parameter in student.parameters():
        parameter.data = parameter.data.to(torch.bfloat16 if optimisation.precision == "bf16" else torch.float32)
    return student.train()


def saved_bytes(
    student: PreTrainedModel, rows: int, tokens: int, taps: Sequence[Tap] = (), *, gpu: bool = False
) -> tuple[int, int]:
    """Bytes that autograd keeps of a forward pass up to the last hidden states, and bytes of what `taps` record.

    `student` is on the meta device. A storage counts once, parameters not at all.
    """
    parameters = {parameter.untyped_storage()._cdata for parameter in student.parameters()}
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters:
            saved[storage._cdata] = storage.nbytes()
        return tensor

    ids = torch.zeros(rows, tokens, dtype=torch.int64, device="meta")
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with WithoutValues(gpu=gpu), recording(student, taps, "student") as seen, hooks:
        hidden = student.base_model(input_ids=ids, use_cache=False).last_hidden_state
    del hidden
    return sum(saved.values()), _recorded_bytes(seen)


def _recorded_bytes(seen: Recording) -> int:
    maps = [tensor for each in seen.attention.values() for tensor in (each.query_BHTD, each.key_BHTD)]
    return sum(tensor.numel() * tensor.element_size() for tensor in (*seen.outputs.values(), *maps))
