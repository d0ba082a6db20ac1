"""Log-likelihoods without logits, against a softmax in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tasks import likelihood
from tasks.likelihood import Window, score_windows, token_scores

VOCABULARY, WIDTH, TOKENS = 37, 6, 23


@pytest.fixture
def hidden() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(TOKENS, WIDTH) * 3


@pytest.fixture
def target() -> torch.Tensor:
    return torch.arange(TOKENS) * 5 % VOCABULARY


class Factorised(nn.Module):
    """A head that is not one dense matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(3, VOCABULARY), nn.Linear(WIDTH, 3, bias=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.left(self.right(hidden))


HEADS = {
    "dense": lambda: nn.Linear(WIDTH, VOCABULARY, bias=False),
    "with a bias": lambda: nn.Linear(WIDTH, VOCABULARY),
    "factorised": Factorised,
}


@pytest.mark.parametrize("elements", [1, 50, 23 * 36, 2**20])
@pytest.mark.parametrize("name", HEADS)
@torch.no_grad()
def test_equals_a_softmax_in_float64_whatever_the_blocks(
    name: str, elements: int, hidden: torch.Tensor, target: torch.Tensor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(likelihood, "BLOCK_ELEMENTS", {"cpu": elements})
    monkeypatch.setattr(likelihood, "WHOLE_TOKENS", {"cpu": 1 + elements % 7})
    torch.manual_seed(0)
    head = HEADS[name]()
    nll, greedy = token_scores(head, hidden, target, greedy=True)
    logits = head.double()(hidden.double())
    expected = torch.logsumexp(logits, -1) - logits.gather(1, target[:, None])[:, 0]
    np.testing.assert_allclose(nll.double(), expected, rtol=2e-6, atol=2e-6)
    assert greedy.tolist() == (logits.argmax(-1) == target).tolist()


@torch.no_grad()
def test_logits_far_apart_neither_overflow_nor_vanish(target: torch.Tensor):
    head = nn.Linear(1, VOCABULARY, bias=False)
    head.weight.copy_(torch.linspace(-300, 300, VOCABULARY)[:, None])
    nll, _ = token_scores(head, torch.ones(TOKENS, 1), target)
    expected = 300 - head.weight[target, 0].double()
    np.testing.assert_allclose(nll.double(), expected, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_of_equal_logits_the_first_is_the_likeliest():
    head = nn.Linear(WIDTH, VOCABULARY, bias=False)
    head.weight.zero_()
    _, greedy = token_scores(head, torch.randn(3, WIDTH), torch.tensor([0, 1, VOCABULARY - 1]), greedy=True)
    assert greedy.tolist() == [True, False, False]


@torch.no_grad()
def test_one_nan_among_the_logits_is_seen(hidden: torch.Tensor, target: torch.Tensor):
    head = nn.Linear(WIDTH, VOCABULARY, bias=False)
    head.weight[7] = float("nan")
    assert token_scores(head, hidden, target)[0].isnan().all()


def test_only_scored_tokens_reach_the_head_a_few_at_a_time(model: Any, monkeypatch: pytest.MonkeyPatch):
    class Head(nn.Linear):
        """Not a plain one, so that it is called."""

    head = Head(16, 290, bias=False)
    head.weight = model.lm_head.weight
    ids = np.arange(60, dtype=np.int64)
    spans = [Window(0, 1, 32), Window(16, 32, 48), Window(32, 48, 60)]
    expected = score_windows(model, ids, spans)
    seen: list[int] = []
    head.register_forward_hook(lambda module, args, out: seen.append(len(out)))
    model.lm_head = head
    monkeypatch.setattr(likelihood, "WHOLE_TOKENS", {"cpu": 11})
    found = score_windows(model, ids, spans)
    assert sum(seen) == sum(span.scored for span in spans)
    assert max(seen) == 11
    np.testing.assert_allclose(found.nll, expected.nll, rtol=1e-6)


def test_windows_of_one_length_share_a_pass_and_nothing_is_padded(model: Any):
    shapes: list[tuple[int, int]] = []
    model.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    spans = [Window(0, 1, 8), Window(8, 9, 20), Window(20, 21, 28), Window(28, 30, 40), Window(40, 41, 48)]
    score_windows(model, np.arange(48, dtype=np.int64), spans)
    assert sorted(shapes) == [(2, 11), (3, 7)]
