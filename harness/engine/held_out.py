"""Training text that nothing of a tuned recipe trains on, the end of the stream: learning rates are compared on it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.stage import StageFailure
from tasks.likelihood import score_windows, windows

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FRACTION, FEWEST, MOST = 0.01, 8, 512
"""Windows held out: a hundredth of the text's, within these bounds."""


def split_held_out(
    tokens: NDArray[np.integer], sequence_length: int
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """The stream to train on, and the windows at its end that are held out; they have no token in common.

    Raises:
        StageFailure: the text has fewer than twice the fewest windows to hold out.
    """
    total = len(tokens) // sequence_length
    if total < 2 * FEWEST:
        raise StageFailure(
            f"learning_rate.grid: the training text has {total} windows of {sequence_length} tokens; holding "
            f"{FEWEST} out takes {2 * FEWEST}"
        )
    count = min(MOST, max(FEWEST, int(FRACTION * total)))
    cut = len(tokens) - count * sequence_length
    return tokens[:cut], tokens[cut:]


def held_out_loss(model: PreTrainedModel, tokens: NDArray[np.integer], sequence_length: int) -> float:
    """Mean cross-entropy in nats per token over windows of the text; the first token of each has no context."""
    spans = list(windows(len(tokens), sequence_length, sequence_length))
    ids = np.asarray(tokens, dtype=np.int64)
    nll = score_windows(model.eval(), ids, spans).nll
    return math.fsum(nll) / sum(span.end - span.first for span in spans)
