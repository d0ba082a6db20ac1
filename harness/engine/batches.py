"""The order of the data: decided by the seed alone, cut into workers' shares and micro-batches without changing it.

Global batch g is the same rows for any number of workers and any micro-batch. Worker r of w takes the r-th contiguous
share; a share is cut into equal micro-batches. `MicroBatch.share` carries the weight that makes the sum over all
micro-batches of all workers the mean over the global batch, also when the last batch of an epoch is partial.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.stage import StageFailure


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """What one forward pass of one worker sees."""

    tensors: dict[str, Tensor]
    share: float
    """Fraction of the global batch's rows; 0 for a filler that only keeps workers in step."""
    first_row: int
    """Key of the first row for dropout: the batches' seed and the row's place in the stream; the others follow."""


class Batches(Protocol):
    """A stream of global batches."""

    seed: int
    rows: int
    """Rows (windows or examples) of a full global batch."""
    row_tokens: int
    """Tokens of the longest row."""

    def tokens(self, step: int) -> int:
        """Tokens of global batch `step`, padding left out."""

    def micro_batches(self, step: int, *, rank: int, world: int, micro: int) -> list[MicroBatch]:
        """Worker `rank`'s part of global batch `step`: always rows / world / micro of them."""


def permutation(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The order of `count` rows in an epoch: a Philox stream keyed by (seed, epoch)."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(count)


class TokenBatches:
    """Non-overlapping windows of a token stream, shuffled anew in each epoch, without an end.

    Window i predicts tokens[i T + 1 : (i + 1) T + 1] from the T tokens before each, T = `sequence_length`. A global
    batch is `batch_tokens` predicted tokens and may span two epochs.

    Args:
        first_step: the global batch of the stream that is step 0 here, for training that goes on where other ended.
    """

    def __init__(
        self,
        tokens: NDArray[np.integer],
        sequence_length: int,
        batch_tokens: int,
        seed: int,
        first_step: int = 0,
    ) -> None:
        if batch_tokens % sequence_length:
            raise StageFailure(
                f"batch_tokens {batch_tokens} is not a multiple of sequence_length {sequence_length}; nearest: "
                f"{max(1, round(batch_tokens / sequence_length)) * sequence_length}"
            )
        self.windows = (len(tokens) - 1) // sequence_length
        if self.windows < 1:
            raise StageFailure(f"{len(tokens)} tokens are too few for one window of {sequence_length} and its target")
        self.seed, self.rows, self.row_tokens = seed, batch_tokens // sequence_length, sequence_length
        self._tokens, self._first_step = tokens, first_step
        self._order = (-1, np.empty(0, np.int64))

    def tokens(self, step: int) -> int:
        return self.rows * self.row_tokens

    def micro_batches(self, step: int, *, rank: int, world: int, micro: int) -> list[MicroBatch]:
        share = self.rows // world
        first = (self._first_step + step) * self.rows + rank * share
        return [self._micro_batch(row, micro) for row in range(first, first + share, micro)]

    def _micro_batch(self, first_row: int, micro: int) -> MicroBatch:
        starts = np.array([self._window(row) for row in range(first_row, first_row + micro)]) * self.row_tokens
        rows_BT = self._tokens[starts[:, None] + np.arange(self.row_tokens + 1)]
        rows = torch.from_numpy(rows_BT.astype(np.int64))
        tensors = {"input_ids": rows[:, :-1].contiguous(), "targets": rows[:, 1:].contiguous()}
        return MicroBatch(tensors=tensors, share=micro / self.rows, first_row=self.seed * 2**40 + first_row)

    def _window(self, row: int) -> int:
        epoch, place = divmod(row, self.windows)
        if self._order[0] != epoch:
            self._order = (epoch, permutation(self.seed, epoch, self.windows))
        return int(self._order[1][place])


POOL_BATCHES = 50
"""Batches whose examples are sorted by length together."""


class ExampleBatches:
    """Labelled examples, bucketed by length and padded on the right to their global batch's longest.

    The last batch of an epoch may be partial.

    Each epoch: shuffle the examples, sort them by length within pools of `POOL_BATCHES` batches, cut into batches,
    shuffle the full batches; a partial one comes last. Labels are class indices, or numbers for regression (float).
    """

    def __init__(
        self,
        encoded: Sequence[Sequence[int]],
        labels: Sequence[float],
        batch_examples: int,
        seed: int,
        pad_id: int,
        *,
        regression: bool = False,
    ) -> None:
        if len(encoded) == 0 or len(encoded) != len(labels):
            raise StageFailure(f"{len(encoded)} examples and {len(labels)} labels: need as many of each, and some")
        empty = next((i for i, ids in enumerate(encoded) if len(ids) == 0), None)
        if empty is not None:
            raise StageFailure(f"example {empty} has no tokens")
        self.seed, self.rows, self._pad_id = seed, batch_examples, pad_id
        self._encoded = encoded
        self._labels = torch.tensor(labels, dtype=torch.float32 if regression else torch.int64)
        self._lengths = np.array([len(ids) for ids in encoded])
        self.row_tokens = int(self._lengths.max())
        self.steps_per_epoch = -(-len(encoded) // batch_examples)
        self._order: tuple[int, list[NDArray[np.int64]]] = (-1, [])

    def steps(self, epochs: int) -> int:
        """Optimiser steps of so many passes over the examples."""
        return epochs * self.steps_per_epoch

    def tokens(self, step: int) -> int:
        return int(self._lengths[self._batch(step)].sum())

    def micro_batches(self, step: int, *, rank: int, world: int, micro: int) -> list[MicroBatch]:
        batch = self._batch(step)
        share = self.rows // world
        firsts = range(rank * share, (rank + 1) * share, micro)
        return [self._micro_batch(step, batch, first, min(first + micro, len(batch))) for first in firsts]

    def _micro_batch(self, step: int, batch: NDArray[np.int64], first: int, stop: int) -> MicroBatch:
        rows = batch[first:stop] if first < stop else batch[:1]
        width = int(self._lengths[batch].max())
        input_ids = torch.full((len(rows), width), self._pad_id)
        attention_mask = torch.zeros(len(rows), width, dtype=torch.int64)
        for place, row in enumerate(rows):
            input_ids[place, : self._lengths[row]] = torch.tensor(self._encoded[row])
            attention_mask[place, : self._lengths[row]] = 1
        tensors = {"input_ids": input_ids, "attention_mask": attention_mask, "labels": self._labels[rows]}
        first_row = self.seed * 2**40 + step * self.rows + first
        return MicroBatch(tensors=tensors, share=max(0, stop - first) / len(batch), first_row=first_row)

    def _batch(self, step: int) -> NDArray[np.int64]:
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            self._order = (epoch, self._epoch(epoch))
        return self._order[1][place]

    def _epoch(self, epoch: int) -> list[NDArray[np.int64]]:
        shuffled = permutation(self.seed, epoch, len(self._encoded))
        full, last = np.split(shuffled, [len(shuffled) // self.rows * self.rows])
        pool = self.rows * POOL_BATCHES
        pools = [full[start : start + pool] for start in range(0, len(full), pool)]
        by_length = [p[np.argsort(self._lengths[p], kind="stable")] for p in pools]
        batches = [batch for p in by_length for batch in p.reshape(-1, self.rows)]
        order = np.random.Generator(np.random.Philox(key=[self.seed, epoch]).jumped()).permutation(len(batches))
        return [batches[i] for i in order] + ([last] if len(last) else [])
