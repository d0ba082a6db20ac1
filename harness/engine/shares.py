"""How a global batch is cut: into the workers' shares, and a share into micro-batches."""

from __future__ import annotations

from typing import Protocol

from harness.stage import Execution, StageFailure

MICRO_BATCH_TOKENS = {"cpu": 2**12, "cuda": 2**14}
"""Tokens of one forward pass of one worker, where `Execution.micro_batch` does not say how many rows."""


class Rows(Protocol):
    """A global batch as far as its size goes; `Batches` is one."""

    @property
    def rows(self) -> int:
        """Windows or examples."""

    @property
    def row_tokens(self) -> int:
        """Of the longest row."""


def divisors(number: int) -> list[int]:
    """Of a positive number, the smallest first."""
    return [n for n in range(1, number + 1) if number % n == 0]


def micro_batch(batches: Rows, execution: Execution, world: int) -> int:
    """Rows per forward pass of one worker: what `execution` says, else the largest divisor that fits.

    Raises:
        StageFailure: the workers' shares are not whole, or the micro-batch does not divide them.
    """
    if batches.rows % world:
        raise StageFailure(f"a global batch of {batches.rows} rows cannot be shared equally by {world} workers")
    share = batches.rows // world
    if execution.micro_batch:
        if share % execution.micro_batch:
            near = min(divisors(share), key=lambda n: abs(n - (execution.micro_batch or 1)))
            raise StageFailure(
                f"micro_batch {execution.micro_batch} does not divide a worker's {share} rows of the global batch; "
                f"nearest: {near}"
            )
        return execution.micro_batch
    most = MICRO_BATCH_TOKENS["cuda" if execution.gpus else "cpu"] // batches.row_tokens
    return max(n for n in divisors(share) if n <= max(1, most))


def smaller(micro: int, share: int) -> int | None:
    """The micro-batch after `micro`: half of it, or the largest divisor of a worker's share below that."""
    return max((n for n in divisors(share) if n <= micro // 2), default=None)
