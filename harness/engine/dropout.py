"""Dropout by recipe, its masks keyed by sample: the same row loses the same entries however a batch is cut.

A mask follows from the row's key (its place in the stream of samples, and the seed) and from the module's place in the
model, so that neither the micro-batch, nor the number of workers, nor recomputation changes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from harness.engine.attention import use_attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class SampleDropout(nn.Module):
    """Zeroes each entry with probability `p` and scales the others by 1 / (1 - p), row by row of the first dimension.

    Args:
        place: which of the model's dropouts it is.
    """

    def __init__(self, p: float, place: int) -> None:
        super().__init__()
        self.p, self.place = p, place
        self.first_row = 0
        """Key of the batch's first row; the others follow it."""

    def forward(self, hidden: Tensor) -> Tensor:
        if not self.training or not self.p:
            return hidden
        kept = torch.empty_like(hidden)
        for row, mask in enumerate(kept):
            generator = torch.Generator(hidden.device).manual_seed(self.seed(row))
            mask.bernoulli_(1 - self.p, generator=generator)
        return hidden * kept.div_(1 - self.p)

    def seed(self, row: int) -> int:
        """The seed of a row's mask: splitmix64 of its key and the module's place, the better half of the bits."""
        mixed = ((self.first_row + row) * 0x9E3779B97F4A7C15 + (self.place + 1) * 0xD1B54A32D192ED03) % 2**64
        mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % 2**64
        return (mixed ^ (mixed >> 31)) >> 32

    def by_row(self, attend: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        """`attend`, which drops entries by torch's own generator, called row by row with each row's seed."""
        outputs = []
        for row in range(len(tensors[0])):
            torch.manual_seed(self.seed(row))
            outputs.append(attend(*(tensor[row : row + 1] for tensor in tensors)))
        return torch.cat(outputs)


def set_dropout(model: PreTrainedModel, probability: float) -> None:
    """Set every dropout of a transformers model, attention's included; what its configuration says does not count."""
    place = 0
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Dropout | SampleDropout):
                setattr(module, name, SampleDropout(probability, place) if probability else nn.Dropout(0.0))
                place += 1
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = probability
            if probability:
                module.attn_dropout = SampleDropout(probability, place)
            place += 1
    if probability:
        use_attention(model)


def key_rows(dropouts: list[SampleDropout], first_row: int) -> None:
    """Tell a model's dropouts which row of the stream of samples is the first of the batch to come."""
    for dropout in dropouts:
        dropout.first_row = first_row


def dropouts(model: nn.Module) -> list[SampleDropout]:
    """The keyed dropouts of a model."""
    return [module for module in model.modules() if isinstance(module, SampleDropout)]
