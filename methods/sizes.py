"""What a model weighs in the units that a budget can have, counted on the model as built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from methods import student
from methods.interface import Unit
from methods.layers.factorised import Factorised
from methods.layers.tied_head import TiedHead
from methods.student_weights import stored_tensors

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


def size_in(unit: Unit, model: PreTrainedModel) -> int:
    """What a budget in `unit` counts: unique parameters, multiply-adds per token, or bytes of weights as stored."""
    if unit == "macs":
        return macs_per_token(model)
    if unit == "bytes":
        return sum(tensor.numel() * tensor.element_size() for tensor in stored_tensors(model).values())
    return student.count_params(model)


def macs_per_token(model: nn.Module) -> int:
    """Multiply-adds per token of all products with weights, output matrix included, embedding look-up not."""
    total = 0
    for name, module in model.named_modules():
        if isinstance(module, Factorised | TiedHead):
            total += module.macs_per_token
        elif name.endswith("lm_head") or type(module).__name__ in ("Linear", "Conv1D"):
            weight = getattr(module, "weight", None)
            total += 0 if weight is None else weight.numel()
    return total
