"""An embedding whose rows are sums of a few vectors, picked by each token's codes.

Shapes: V vocabulary, D width, t codes per token, c values per code, T tokens.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.layers.factorised import Factorised, Spec

_SHORT = torch.iinfo(torch.int16).max


class CodeEmbedding(Factorised, kind="code_embedding"):
    """W[v] = sum over j of tables[j, codes[v, j]]; t c D parameters.

    `tables` (t x c x D) trains, `codes` (V x t) is a buffer: int16, or int32 where c is above 32,768.

    Specification: `{"type": "code_embedding", "codes": t, "values": c}`.
    """

    codes: Tensor

    def __init__(self, vocab: int, width: int, codes: int, values: int) -> None:
        super().__init__(vocab, width, bias=False)
        self.tables = nn.Parameter(torch.zeros(codes, values, width))
        dtype = torch.int16 if values - 1 <= _SHORT else torch.int32
        self.register_buffer("codes", torch.zeros(vocab, codes, dtype=dtype))

    @classmethod
    def from_spec(cls, spec: Spec, out_features: int, in_features: int, *, bias: bool) -> Self:
        assert not bias, "an embedding has no bias"
        return cls(out_features, in_features, spec["codes"], spec["values"])

    @classmethod
    def count(cls, spec: Spec, out_features: int, in_features: int) -> int:
        total: int = spec["codes"] * spec["values"] * in_features
        return total

    @property
    def macs_per_token(self) -> int:
        """Adding t vectors, which no matrix product does: nothing."""
        return 0

    @property
    def head_macs_per_token(self) -> int:
        """Multiply-adds of `logits` for one token; its t V additions are not counted."""
        return self.tables.numel()

    def forward(self, tokens: Tensor) -> Tensor:
        return self._rows(self.codes[tokens])

    def logits(self, hidden: Tensor) -> Tensor:
        """W h: h against the t c vectors, and for each token of the vocabulary the sum of its t products."""
        scores = F.linear(hidden, self.tables.flatten(0, 1))
        scores_BTJC = scores.reshape(*hidden.shape[:-1], *self.tables.shape[:2])
        codes_VJ = self.codes.int()
        total = scores_BTJC[..., 0, :].index_select(-1, codes_VJ[:, 0])
        for j in range(1, codes_VJ.shape[1]):
            total = total + scores_BTJC[..., j, :].index_select(-1, codes_VJ[:, j])
        return total

    def materialise(self) -> Tensor:
        return self._rows(self.codes)

    def _rows(self, codes: Tensor) -> Tensor:
        """Rows (.. x D) of the tokens with these codes (.. x t), one code at a time."""
        codes = codes.int()
        total = F.embedding(codes[..., 0], self.tables[0])
        for j in range(1, codes.shape[-1]):
            total = total + F.embedding(codes[..., j], self.tables[j])
        return total
