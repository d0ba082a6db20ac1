"""The size card: what a student weighs, counted on the model as built and never claimed by its method."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from methods import student
from methods.families import architecture
from methods.sizes import macs_per_token

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


def size_card(model: PreTrainedModel, teacher: PreTrainedModel, directory: Path) -> Mapping[str, Any]:
    """Fields of `results.record.SizeCard`; `directory` holds the student's `model.safetensors`."""
    params, whole = student.count_params(model), student.count_params(teacher)
    embedding = model.get_submodule(architecture(model.config).embedding)
    output = _own_parameters(model.lm_head, embedding)
    dense = student.materialise(model)
    return {
        "params": params,
        "params_fraction": params / whole,
        "params_without_embedding": params - sum(p.numel() for p in embedding.parameters()),
        "params_without_output": params - output,
        "stored_bytes": sum(file.stat().st_size for file in directory.glob("*.safetensors")),
        "materialised_bytes": sum(p.numel() * p.element_size() for p in dense.parameters()),
        "macs_per_token": macs_per_token(model),
    }


def _own_parameters(head: nn.Module, embedding: nn.Module) -> int:
    tied = {id(p) for p in embedding.parameters()}
    return sum(p.numel() for p in head.parameters() if id(p) not in tied)
