"""A student of the same shapes with what its method made drawn at random: what is left without the decomposition."""

from __future__ import annotations

from collections.abc import Mapping
from math import log2
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from methods.families import architecture
from methods.interface import Plan
from methods.layers.factorised import Factorised

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CLOSE = 1e-3
"""Relative error of a layer's root mean square."""
ROUNDS = 20


@torch.no_grad()
def redraw(
    student: PreTrainedModel, plan: Plan, *, seed: int, carried: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """Draw at random, in place, what `plan` replaced; what the method left alone stays the teacher's.

    - With surgery: every parameter of the replaced layers that trains, but for biases, by `draw_factors`. What the plan
      freezes stays, and so do index lists (permutations, masks, codes): they are buffers, part of the architecture.
    - Without surgery, but with another configuration (fewer layers): the blocks, as a model from scratch has them:
      matrices normal with the configuration's `initializer_range`, biases 0, norms 1.

    Args:
        carried: surgery that the phase before left; layers of the same specification keep what it trained.
    """
    generator = torch.Generator().manual_seed(seed)
    std = student.config.initializer_range
    for path, spec in plan.surgery.items():
        if (carried or {}).get(path) != spec:
            layer = student.get_submodule(path)
            assert isinstance(layer, Factorised), f"{path} is declared factorised but is {type(layer).__name__}"
            draw_factors(layer, std, generator)
    if not plan.surgery and plan.config_changes:
        for path in architecture(student.config).blocks:
            _draw_block(student.get_submodule(path), std, generator)


def draw_factors(layer: Factorised, std: float, generator: torch.Generator) -> None:
    """Independent normal entries in all parameters that train, at one standard deviation s, biases excepted.

    s is such that the entries of W(factors) - W(0) have `std` as root mean square, W(0) being what frozen parameters
    give: of a product of N factors, s^N times the root mean square at s = 1. Sums of products of different length are
    solved by Newton's method on log rms against log s.

    Raises:
        MethodError: the layer has no dense equivalent.
    """
    drawn = [each for name, each in layer.named_parameters() if each.requires_grad and name != "bias"]
    if not drawn:
        return
    normal = [torch.randn(each.shape, generator=generator) for each in drawn]

    def fill(scale: float) -> None:
        for parameter, values in zip(drawn, normal, strict=True):
            parameter.copy_(scale * values)

    fill(0.0)
    fixed = layer.materialise()

    def rms(scale: float) -> float:
        fill(scale)
        return float((layer.materialise() - fixed).double().square().mean().sqrt())

    scale, found = 1.0, rms(1.0)
    for _ in range(ROUNDS):
        if abs(found / std - 1) <= CLOSE:
            break
        degree = log2(rms(2 * scale) / found)
        scale *= (std / found) ** (1 / degree)
        found = rms(scale)


def _draw_block(block: nn.Module, std: float, generator: torch.Generator) -> None:
    for name, parameter in block.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
        elif parameter.dim() == 1:
            parameter.fill_(1.0)
        else:
            parameter.copy_(std * torch.randn(parameter.shape, generator=generator))
