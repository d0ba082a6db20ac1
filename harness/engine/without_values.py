"""Forward passes on torch's meta device: shapes and sizes of what a model computes, without its values.

Some code looks at values or chooses a kernel by the device; on tensors without values it is told what training does.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class WithoutValues(TorchFunctionMode):
    """Lets models run whose tensors are on the meta device.

    Questions about values are answered as in good training: a mask hides nothing, two results are close, and no padding
    is among the tokens. Attention is the fused kernel, which keeps no map, where it is on the device that is meant: a
    CPU has none with dropout. Torch has no choice of kernels for the meta device and would take the one that keeps it.
    """

    def __init__(self, *, gpu: bool = False) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = kwargs or {}
        if args and isinstance(args[0], Tensor) and args[0].is_meta:
            if func is Tensor.__bool__ or func is torch.allclose:
                return True
            if func is Tensor.__contains__:
                return False
            if func is F.scaled_dot_product_attention and (self.gpu or not options.get("dropout_p")):
                return _fused(*args, **options)
        return func(*args, **options)


def _fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    run: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    attended: Tensor = run(query, key, value, 0.0, is_causal, attn_mask=attn_mask, scale=scale)[0]
    return attended


def meta_copy(module: nn.Module) -> Any:
    """The same modules and settings with parameters and buffers on the meta device; takes no memory."""
    known: dict[int, Any] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        empty = torch.empty_like(tensor, device="meta")
        is_parameter = isinstance(tensor, nn.Parameter)
        known[id(tensor)] = nn.Parameter(empty, requires_grad=tensor.requires_grad) if is_parameter else empty
    return copy.deepcopy(module, known)


def reads_values(error: BaseException) -> bool:
    """True of what a layer raises that needs the values of a tensor without any."""
    return isinstance(error, NotImplementedError) or (isinstance(error, RuntimeError) and "meta" in str(error))
