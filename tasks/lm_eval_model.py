"""A model as lm-eval sees it, and lm-eval kept quiet and drawing by its own seeds."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from copy import deepcopy
from io import StringIO
from typing import TYPE_CHECKING, Any

from tasks.interface import DataError
from tasks.likelihood import check_vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

VERY_LARGE = 10**30
"""Tokens; what transformers itself uses for no limit."""


def scorer(
    name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch: int, context: int | None = None
) -> Any:
    """lm-eval's `HFLM` around a loaded model, for the protocol called `name`.

    `context` is the longest window in tokens; None leaves it to lm-eval, which takes the model's positions. Its
    attribute `truncated` counts the requests that were cut on the left to fit. `DataError` for a tokenizer without an
    end of text, a token that the model does not have, and an empty target or one longer than the context.
    """
    from lm_eval.models.huggingface import HFLM

    if tokenizer.eos_token_id is None:
        raise DataError(f"{name}: the tokenizer has no EOS token, which lm-eval starts texts with")

    class Scorer(HFLM):  # type: ignore[misc]
        truncated = 0

        def tok_encode(self, *args: Any, **kwargs: Any) -> list[int]:
            ids: list[int] = super().tok_encode(*args, **kwargs)
            check_vocabulary(name, model, tokenizer, max(ids, default=0))
            return ids

        def _loglikelihood_tokens(self, requests: list[Any], *args: Any, **kwargs: Any) -> Any:
            for _, given, target in requests:
                if not target:
                    raise DataError(f"{name}: a target without a token")
                if len(target) > self.max_length:
                    raise DataError(
                        f"{name}: a target of {len(target)} tokens is longer than the context of {self.max_length}"
                    )
                self.truncated += len(given) + len(target) > self.max_length + 1
            return super()._loglikelihood_tokens(requests, *args, **kwargs)

    return Scorer(
        pretrained=model,
        tokenizer=_own_copy(tokenizer),
        batch_size=batch,
        device=str(model.device),
        max_length=context,
    )


def _own_copy(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A tokenizer that HFLM may give a padding token, and that does not warn of texts longer than the context."""
    copied = deepcopy(tokenizer)
    copied.model_max_length = VERY_LARGE
    return copied


@contextmanager
def quiet() -> Iterator[None]:
    """Keep lm-eval's progress bars and log lines off the terminal; exceptions pass."""
    log = logging.getLogger("lm_eval")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with redirect_stderr(StringIO()):
            yield
    finally:
        log.setLevel(level)


@contextmanager
def seeded(model: PreTrainedModel) -> Iterator[None]:
    """Random generators as lm-eval's command line seeds them; afterwards they are as they were."""
    import numpy as np
    import torch
    from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED

    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        random.seed(DEFAULT_RANDOM_SEED)
        np.random.seed(DEFAULT_OTHER_SEED)
        torch.manual_seed(DEFAULT_OTHER_SEED)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
