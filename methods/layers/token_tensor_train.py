"""An embedding whose rows are tensor trains, one per token.

Shapes: V vocabulary, D width, D <= n_1 ... n_N, cores of all tokens G_k (V x r_{k-1} x n_k x r_k), r_0 = r_N = 1;
T any tokens (repetitions allowed).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.layers.factorised import Factorised, Spec

CHUNK_ELEMENTS = 2**22
"""Entries of the dense weight that `logits` holds at once."""


class TokenTensorTrainEmbedding(Factorised, kind="token_tensor_train"):
    """Row v of W, folded to n_1 x .. x n_N: W[v, (j1..jN)] = G_1[v][j1] ... G_N[v][jN].  TensorGPT, 2307.00526.

    V times the sum of r_{k-1} n_k r_k parameters, `core_0`, `core_1`, ... Every token has cores of its own, so that a
    row depends on that token's entries alone. Modes may multiply to more than the width: the row is then cut.

    Specification: `{"type": "token_tensor_train", "modes": [n..], "ranks": [1, .., 1]}`.
    """

    def __init__(self, vocab: int, width: int, modes: Sequence[int], ranks: Sequence[int]) -> None:
        super().__init__(vocab, width, bias=False)
        assert prod(modes) >= width, f"{list(modes)} are fewer than the width {width}"
        for k, shape in enumerate(zip(ranks[:-1], modes, ranks[1:], strict=True)):
            self.register_parameter(f"core_{k}", nn.Parameter(torch.zeros(vocab, *shape)))
        self._modes, self._ranks = tuple(modes), tuple(ranks)

    @property
    def cores(self) -> list[Tensor]:
        """G_1 .. G_N, held as `core_0` .. so that ZeRO-3 gathers them with this module."""
        return [getattr(self, f"core_{k}") for k in range(len(self._modes))]

    @classmethod
    def from_spec(cls, spec: Spec, out_features: int, in_features: int, *, bias: bool) -> Self:
        assert not bias, "an embedding has no bias"
        return cls(out_features, in_features, spec["modes"], spec["ranks"])

    @classmethod
    def count(cls, spec: Spec, out_features: int, in_features: int) -> int:
        return out_features * token_params(spec["modes"], spec["ranks"])

    @property
    def macs_per_token(self) -> int:
        """Multiply-adds of contracting one token's cores from the first to the last."""
        sizes = zip(self._ranks[1:-1], self._modes[1:], self._ranks[2:], strict=True)
        return sum(prod(self._modes[:k]) * a * n * b for k, (a, n, b) in enumerate(sizes, start=1))

    @property
    def head_macs_per_token(self) -> int:
        """Multiply-adds of `logits` for one token; building the rows, once per pass, is not counted."""
        return self.out_features * self.in_features

    def forward(self, tokens: Tensor) -> Tensor:
        gathered = [F.embedding(tokens.flatten(), core.flatten(1)).reshape(-1, *core.shape[1:]) for core in self.cores]
        return self._rows(gathered).reshape(*tokens.shape, self.in_features)

    def logits(self, hidden: Tensor) -> Tensor:
        """W h, with the rows of W built for a chunk of the vocabulary at a time.

        Without gradients no more than `CHUNK_ELEMENTS` of W exist at once.
        """
        chunk = max(1, CHUNK_ELEMENTS // prod(self._modes))
        splits = zip(*(torch.split(core, chunk) for core in self.cores), strict=True)
        return torch.cat([F.linear(hidden, self._rows(cores)) for cores in splits], -1)

    def materialise(self) -> Tensor:
        return self._rows(self.cores)

    def _rows(self, cores: Sequence[Tensor]) -> Tensor:
        """Dense rows (T x D) of the tokens whose cores (T x r_{k-1} x n_k x r_k) are given, in the cores' precision.

        Under autocast the products are less precise, but a residual stream that starts here keeps its type.
        """
        row_TJR = cores[0][:, 0]
        for core in cores[1:]:
            row_TJR = torch.bmm(row_TJR, core.flatten(2)).reshape(len(core), -1, core.shape[3])
        return row_TJR[:, : self.in_features, 0].to(cores[0].dtype)


def token_params(modes: Sequence[int], ranks: Sequence[int]) -> int:
    """Parameters of one token's train: the sum of r_{k-1} n_k r_k."""
    return sum(a * n * b for a, n, b in zip(ranks[:-1], modes, ranks[1:], strict=True))
