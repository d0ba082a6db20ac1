"""Tiny teachers with random weights, for checking methods without data; or a small real one from a directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from methods.interface import MethodError
from methods.spelling import nearest

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

VOCAB = 96
TEACHERS = ("gpt2", "gpt2-untied", "llama", "llama-untied")
WIDE = "gpt2-wide"
"""GPT-2 small's width with two blocks, 14 million parameters: for presets, whose shapes are GPT-2 small's."""


def config(label: str) -> PretrainedConfig:
    """The configuration behind a label of `TEACHERS`, or `WIDE`; grouped-query attention in Llama."""
    from transformers import GPT2Config, LlamaConfig

    family, _, untied = label.partition("-")
    shared = {"vocab_size": VOCAB, "bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": not untied}
    if family == "gpt2":
        off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        if label == WIDE:
            return GPT2Config(n_layer=2, n_positions=32, **off, **shared | {"tie_word_embeddings": True})
        return GPT2Config(n_embd=48, n_layer=4, n_head=4, n_positions=32, **off, **shared)
    return LlamaConfig(
        hidden_size=48,
        intermediate_size=144,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
        **shared,
    )


def teacher(label: str) -> PreTrainedModel:
    """A model whose matrices have decaying singular values, as trained ones do; same label, same bits."""
    from methods.families import architecture, weight_OI
    from methods.student import build

    made = config(label)
    model = build(made, {})
    dense = architecture(made)
    matrices = {each.path for each in dense.matrices} | {dense.embedding} | (set() if dense.tied else {dense.head})
    generator = torch.Generator().manual_seed((*TEACHERS, WIDE).index(label))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.1 * noise if parameter.dim() == 1 and "bias" not in name else 0.1 * noise)
        for path in sorted(matrices):
            _decay(weight_OI(model.get_submodule(path)), 10.0 if path == dense.embedding else 3.0)
    return model


def _decay(weight: torch.Tensor, scale: float) -> None:
    """Give `weight` singular values of scale / (1 + i / 4), in place; a large one about those, by scaling columns."""
    if min(weight.shape) > 256:
        weight *= scale / (1 + torch.arange(weight.shape[1]) / 4) / (weight.std() * weight.shape[0] ** 0.5)
        return
    u, s, vt = torch.linalg.svd(weight.double(), full_matrices=False)
    weight.copy_(u * (scale / (1 + torch.arange(len(s)) / 4)) @ vt)


def tokens(batch: int = 4, length: int = 32) -> torch.Tensor:
    """Fixed random tokens (batch x length); none is the special token 0."""
    return torch.randint(1, VOCAB, (batch, length), generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A model under a label, and fixed random tokens of its vocabulary."""

    label: str
    model: PreTrainedModel

    def tokens(self, batch: int = 4, seed: int = 0) -> torch.Tensor:
        """Tokens (batch x length) without the special token 0; length is at most 32."""
        config = self.model.config
        length = min(32, config.max_position_embeddings)
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(1, config.vocab_size, (batch, length), generator=generator)

    def batches(self) -> list[torch.Tensor]:
        """Eight batches of tokens for calibration; more tokens than any tiny matrix has columns."""
        return [self.tokens(seed=1 + k) for k in range(8)]


def find(where: str) -> Teacher:
    """The tiny teacher of that label, or the model in that directory.

    Raises:
        MethodError: it is neither, or the directory holds no model of a family that is supported.
    """
    if where in (*TEACHERS, WIDE):
        return Teacher(label=where, model=teacher(where))
    if not (Path(where) / "config.json").is_file():
        what = "holds no config.json" if Path(where).is_dir() else "is no directory and no tiny teacher"
        raise MethodError(f"teacher {where!r} {what}{nearest(where, (*TEACHERS, WIDE))}")
    from methods.student import load

    return Teacher(label=Path(where).name or where, model=load(Path(where)))
