"""Our entry in transformers' table of attention functions: what `sdpa` does, recorded where a tap asks for it.

Queries and keys are recorded after rotary embedding, and dropout is keyed by sample, for any model family that goes
through transformers' attention interface. Shape suffixes: B batch, H query heads, G key heads, T positions, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "weighin_sdpa"


def use_attention(model: PreTrainedModel) -> None:
    """Let the model attend through `attention` from now on."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.config._attn_implementation = NAME


@contextmanager
def attending(model: PreTrainedModel) -> Iterator[None]:
    """Let the model attend through `attention` inside the block."""
    before = model.config._attn_implementation
    use_attention(model)
    try:
        yield
    finally:
        model.config._attn_implementation = before


def attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Scaled dot-product attention; query (B, H, T, D), key and value (B, G, T, D), output (B, T, H, D).

    Calls the module's `_weighin_record`, which a tap puts there, and drops attention weights by the module's
    `attn_dropout` where that is keyed by sample.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    record: Any = getattr(module, "_weighin_record", None)
    if record is not None:
        record(query, key, options.get("scaling"), mask)
    attend = partial(_first, sdpa_attention_forward, module, options)
    by_row = getattr(getattr(module, "attn_dropout", None), "by_row", None)
    if by_row is None or not options.get("dropout"):
        return attend(query, key, value, mask), None
    masks = () if mask is None else (mask.expand(len(query), *mask.shape[1:]),)
    return by_row(attend, query, key, value, *masks), None


def _first(
    function: Any, module: nn.Module, options: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any = None
) -> Tensor:
    attended: Tensor = function(module, query, key, value, mask, **options)[0]
    return attended
