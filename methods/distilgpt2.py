"""Fewer layers: every other block of the teacher, then distillation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from methods.families import architecture
from methods.interface import Budget, MethodError, Plan, Preset, Refusal, Statistics, Tap
from methods.layer_dropping import LayerDropping
from methods.planning import accept
from methods.recipe import Losses, Recipe

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class DistilGPT2(LayerDropping):
    """DistilGPT2: keep evenly spaced layers of the teacher and distil.  Sanh et al., 2019 (arXiv 1910.01108).

    Student layer i of k is the teacher's layer round(i (L - 1) / (k - 1)) of L, which is 0, 2, 4, 7, 9, 11 for 6 of 12;
    embeddings, final norm and output matrix are copied. It meets only budgets that a whole number of layers meets.
    The published rule is the list for 6 of 12; the formula for other counts is ours.
    """

    presets: ClassVar[Mapping[str, Preset]] = {
        "distilgpt2": Preset(
            fields={"kept_layers": 6},
            counts={"unique": 81_912_576, "without_output_matrix": 81_912_576},
            source="huggingface/transformers, examples/research_projects/distillation; the count is arithmetic",
        )
    }
    places = frozenset({"checkpoint"})

    preset: Literal["distilgpt2"] | None = None
    """The released depth, 6 layers."""
    checkpoint: str | None = None
    """Directory of a published student to measure instead; its own size is what must meet the budget."""

    def plan(self, teacher_config: PretrainedConfig, budget: Budget | None) -> Plan | Refusal:
        if self.checkpoint is None:
            return super().plan(teacher_config, budget)
        size, layers = _published(self.checkpoint)
        plan = Plan(size=size, config_changes={"num_hidden_layers": layers}, details={"checkpoint": self.checkpoint})
        return accept(
            budget, plan, architecture(teacher_config).num_params, f"{self.checkpoint} has {size:,} parameters"
        )

    @property
    def keeps_weights(self) -> bool:
        """A published student was trained."""
        return self.checkpoint is None

    def choice(self, depth: int, layers: int) -> dict[str, Any]:
        return {"kept": kept_layers(depth, layers)}

    def compress(self, teacher: PreTrainedModel, plan: Plan, *, seed: int, statistics: Statistics) -> PreTrainedModel:
        if self.checkpoint is None:
            return super().compress(teacher, plan, seed=seed, statistics=statistics)
        from methods.student import load

        return load(Path(self.checkpoint), dtype=teacher.dtype)

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


def _published(checkpoint: str) -> tuple[int, int]:
    from methods.student_config import dense_config

    file = Path(checkpoint) / "config.json"
    try:
        fields: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise MethodError(f"distilgpt2: checkpoint: {file} cannot be read: {error}") from None
    dense = architecture(dense_config(fields))
    return dense.num_params, len(dense.blocks)
