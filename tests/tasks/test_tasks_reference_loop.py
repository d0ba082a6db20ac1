"""The strided protocols beside the loop of transformers' documentation, "Perplexity of fixed-length models"."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from tasks.likelihood import score_windows, windows

CONTEXT, VOCABULARY, TOKENS = 32, 290, 400


def gpt2() -> Any:
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=CONTEXT))


def llama() -> Any:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=CONTEXT,
        )
    )  # fmt: skip


def documented(model: Any, ids: list[int], stride: int) -> float:
    """The loop as it stands there; it leaves each window's average to be weighed by the tokens that it scores."""
    encodings = torch.tensor([ids])
    seq_len = encodings.size(1)
    nll_sum, n_tokens, prev_end_loc = 0.0, 0, 0
    for begin_loc in range(0, seq_len, stride):
        end_loc = min(begin_loc + CONTEXT, seq_len)
        trg_len = end_loc - prev_end_loc
        input_ids = encodings[:, begin_loc:end_loc]
        target_ids = input_ids.clone()
        target_ids[:, :-trg_len] = -100
        with torch.no_grad():
            neg_log_likelihood = model(input_ids, labels=target_ids).loss
        num_valid_tokens = (target_ids != -100).sum().item()
        num_loss_tokens = num_valid_tokens - int((target_ids[:, 0] != -100).sum())
        nll_sum += neg_log_likelihood.double().item() * num_loss_tokens
        n_tokens += num_loss_tokens
        prev_end_loc = end_loc
        if end_loc == seq_len:
            break
    return math.exp(nll_sum / n_tokens)


@pytest.mark.parametrize("share", [1, 2, 4])
@pytest.mark.parametrize("family", [gpt2, llama])
def test_equals_the_documented_loop(family: Any, share: int):
    torch.manual_seed(0)
    model = family().eval()
    for parameter in model.parameters():
        parameter.data.mul_(3)
    ids = np.random.default_rng(0).integers(0, VOCABULARY, TOKENS)
    spans = list(windows(TOKENS, CONTEXT, CONTEXT // share))
    nll = score_windows(model, ids, spans).nll
    found = math.exp(math.fsum(nll) / sum(span.scored for span in spans))
    assert found == pytest.approx(documented(model, ids.tolist(), CONTEXT // share), rel=1e-6)
