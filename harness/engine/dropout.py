"""Dropout by recipe: the configuration a model came with does not decide how it is trained here."""

from __future__ import annotations

from torch import nn


def set_dropout(model: nn.Module, probability: float) -> None:
    """Set every dropout of a transformers model, attention's included."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability
        if isinstance(getattr(module, "attention_dropout", None), float):
            setattr(module, "attention_dropout", probability)  # noqa: B010  its type is not nn.Module's to say
