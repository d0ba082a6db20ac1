"""Fewer layers: every other block of the teacher, then distillation."""

from __future__ import annotations

import json
from copy import copy
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from methods.families import Architecture, architecture
from methods.interface import Budget, Method, MethodError, Plan, Refusal, Statistics, Tap
from methods.recipe import Losses, Recipe

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class DistilGPT2(Method):
    """DistilGPT2: keep evenly spaced layers of the teacher and distil.  Sanh et al., 2019 (arXiv 1910.01108).

    Student layer i of k is the teacher's layer round(i (L - 1) / (k - 1)) of L, which is 0, 2, 4, 7, 9, 11 for 6 of 12;
    embeddings, final norm and output matrix are copied. It meets only budgets that a whole number of layers meets.
    """

    places = frozenset({"checkpoint"})

    checkpoint: str | None = None
    """Directory of a published student to measure instead; it is budgeted by its own size."""

    def plan(self, teacher_config: PretrainedConfig, budget: Budget | None) -> Plan | Refusal:
        assert budget is not None, "distilgpt2 is budgeted"
        if self.checkpoint is not None:
            return self._plan_checkpoint(architecture(teacher_config).num_params, budget)
        dense = architecture(teacher_config)
        depth = len(dense.blocks)
        target = budget.target(dense.num_params)
        layers = min(range(1, depth + 1), key=lambda k: abs(_size(teacher_config, k) - target))
        size = _size(teacher_config, layers)
        if not budget.met_by(size, dense.num_params):
            reason = f"{layers} of {depth} layers is the nearest depth"
            return Refusal(reason=reason, nearest=size / dense.num_params)
        kept = {"kept": kept_layers(depth, layers)}
        return Plan(size=size, config_changes={"num_hidden_layers": layers}, details=kept)

    def _plan_checkpoint(self, teacher_size: int, budget: Budget) -> Plan | Refusal:
        size, layers = _published(str(self.checkpoint))
        if not budget.met_by(size, teacher_size):
            return Refusal(reason=f"{self.checkpoint} has {size:,} parameters", nearest=size / teacher_size)
        return Plan(size=size, config_changes={"num_hidden_layers": layers}, details={"checkpoint": self.checkpoint})

    def compress(self, teacher: PreTrainedModel, plan: Plan, *, seed: int, statistics: Statistics) -> PreTrainedModel:
        from methods.student import from_teacher, load

        if self.checkpoint is not None:
            return load(Path(self.checkpoint), dtype=teacher.dtype)
        kept: list[int] = plan.details["kept"]
        prefix = _block_prefix(architecture(teacher.config))
        moved = {f"{prefix}.{i}": f"{prefix}.{kept[i]}" for i in range(len(kept))}

        def source(path: str) -> str:
            block = ".".join(path.split(".")[:3])
            return moved.get(block, block) + path[len(block) :]

        return from_teacher(teacher, plan, source=source)

    def fingerprint(self) -> str:
        """What the published student is, wherever it lies."""
        if self.checkpoint is None:
            return ""
        total = sha256()
        for file in sorted([*Path(self.checkpoint).glob("*.safetensors"), Path(self.checkpoint) / "config.json"]):
            with file.open("rb") as stream:
                total.update(f"{file.name} {file_digest(stream, 'sha256').hexdigest()}\n".encode())
        return f"sha256:{total.hexdigest()}"

    def taps(self, teacher_config: PretrainedConfig, plan: Plan) -> tuple[Tap]:
        """Cosine distance of the last hidden states, the output of the final norm."""
        norm = architecture(teacher_config).final_norm
        return (Tap(teacher=norm, student=norm, loss="cosine"),)

    def recipe(self) -> Recipe:
        """Defaults of the authors' script: T = 2, 0.5 KL + 0.5 CE, 3 epochs, batch 5 accumulated 50 times, on 8 GPUs.

        The weights used for the released DistilGPT2 are not known, nor is the sequence length: 1,024 is taken, and an
        epoch of OpenWebText as 9.0 billion tokens. The script's cosine weight is 0, hence no taps.
        """
        return Recipe(
            tokens=3 * 9_000_000_000,
            batch_tokens=8 * 5 * 50 * 1024,
            sequence_length=1024,
            learning_rate=5e-4,
            schedule="linear",
            warmup_fraction=0.05,
            final_fraction=0.0,
            weight_decay=0.0,
            epsilon=1e-6,
            gradient_clipping=5.0,
            losses=Losses(ce=0.5, kd=0.5, temperature=2.0),
        )


def kept_layers(depth: int, layers: int) -> list[int]:
    """The teacher's layers that become the student's, evenly spaced from the first to the last."""
    if layers == 1:
        return [0]
    return [round(i * (depth - 1) / (layers - 1)) for i in range(layers)]


def _size(config: PretrainedConfig, layers: int) -> int:
    """Parameters with that many layers."""
    changed = copy(config)
    changed.num_hidden_layers = layers
    return architecture(changed).num_params


def _block_prefix(dense: Architecture) -> str:
    return dense.blocks[0].rpartition(".")[0]


def _published(checkpoint: str) -> tuple[int, int]:
    from methods.student_config import dense_config

    file = Path(checkpoint) / "config.json"
    try:
        fields: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise MethodError(f"distilgpt2: checkpoint: {file} cannot be read: {error}") from None
    dense = architecture(dense_config(fields))
    return dense.num_params, len(dense.blocks)
