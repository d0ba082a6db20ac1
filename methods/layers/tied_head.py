"""The output matrix of a model whose tied embedding is factorised."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class TiedHead(nn.Module):
    """logits = W h with the factorised embedding's W; holds no parameters and adds no key to a file.

    The embedding is reached through an ordinary attribute but is not a submodule, so that it is counted, saved and
    trained once. Its `logits(hidden)` must not need the dense weight.
    """

    emb: Any

    def __init__(self, emb: nn.Module) -> None:
        super().__init__()
        self.__dict__["emb"] = emb

    @property
    def weight(self) -> Tensor:
        """The dense weight (vocab x width)."""
        weight: Tensor = self.emb.materialise()
        return weight

    @property
    def macs_per_token(self) -> int:
        """Multiply-adds for one token."""
        macs: int = self.emb.head_macs_per_token
        return macs

    def forward(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.emb.logits(hidden)
        return logits
