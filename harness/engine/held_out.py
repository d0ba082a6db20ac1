"""What learning rates are compared on: the end of the training text, or some of a task's training examples."""

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
FEWEST_EXAMPLES = 100


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


def split_examples(labels: NDArray[np.generic], fraction: float) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Rows to train on, and rows that are held out: `fraction` of them and at least 100, in their order.

    The same for every model and seed. Rows are shuffled, sorted by label, and taken at equal distances, so that each
    class (of a regression: each range of labels) has its share to within one row.

    Raises:
        StageFailure: there are fewer than twice the fewest rows to hold out.
    """
    if len(labels) < 2 * FEWEST_EXAMPLES:
        raise StageFailure(
            f"learning_rate.grid: the task has {len(labels)} training rows; holding {FEWEST_EXAMPLES} out takes "
            f"{2 * FEWEST_EXAMPLES}"
        )
    count = max(FEWEST_EXAMPLES, round(fraction * len(labels)))
    shuffled = np.random.Generator(np.random.Philox(key=[0, 0])).permutation(len(labels))
    by_label = shuffled[np.argsort(labels[shuffled], kind="stable")]
    out = np.zeros(len(labels), dtype=bool)
    out[by_label[((np.arange(count) + 0.5) * len(labels) / count).astype(np.int64)]] = True
    return np.flatnonzero(~out), np.flatnonzero(out)


def held_out_loss(model: PreTrainedModel, tokens: NDArray[np.integer], sequence_length: int) -> float:
    """Mean cross-entropy in nats per token over windows of the text; the first token of each has no context."""
    spans = list(windows(len(tokens), sequence_length, sequence_length))
    ids = np.asarray(tokens, dtype=np.int64)
    nll = score_windows(model.eval(), ids, spans).nll
    return math.fsum(nll) / sum(span.end - span.first for span in spans)
