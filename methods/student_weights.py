"""The weight files of a model directory: safetensors only, whole or in shards."""

from __future__ import annotations

import json
import re
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from methods.interface import MethodError
from methods.layers.factorised import Factorised

_LEGACY_BUFFERS = re.compile(r"\.attn\.(masked_)?bias$|\.rotary_emb\.inv_freq$")
"""Constants that older checkpoints stored and today's models rebuild."""
_HEADS = ("lm_head.", "score.")


def stored_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What a file holds: every parameter once, under its first name, and the factorised layers' index lists."""
    buffers = {
        f"{path}.{name}": buffer
        for path, layer in model.named_modules()
        if isinstance(layer, Factorised)
        for name, buffer in layer.named_buffers()
    }
    return dict(model.named_parameters()) | buffers


def write_weights(model: nn.Module, directory: Path) -> None:
    """Write `model.safetensors`."""
    tensors = {name: each.detach().cpu().contiguous() for name, each in stored_tensors(model).items()}
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def read_weights(directory: Path, base: str) -> dict[str, Tensor]:
    """All tensors of a directory, by parameter name; `base` is put before names that were stored without it.

    Raises:
        MethodError: there are no safetensors, or they cannot be read.
    """
    tensors: dict[str, Tensor] = {}
    for file in _files(directory):
        try:
            tensors |= load_file(file)
        except (SafetensorError, OSError) as error:
            raise MethodError(f"{file} cannot be read: {error}") from None
    named = {name: each for name, each in tensors.items() if not _LEGACY_BUFFERS.search(f".{name}")}
    if any(name.startswith(f"{base}.") for name in named):
        return named
    return {name if name.startswith(_HEADS) else f"{base}.{name}": each for name, each in named.items()}


def _files(directory: Path) -> list[Path]:
    index = directory / "model.safetensors.index.json"
    if index.exists():
        return [
            directory / Path(name).name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))
        ]
    whole = directory / "model.safetensors"
    if not whole.exists():
        raise MethodError(f"{directory} holds no model.safetensors; other formats can run code and are not read")
    return [whole]
