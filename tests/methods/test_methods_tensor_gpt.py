"""Tensor trains per token: against a decomposition row by row, and against the dense embedding."""

import numpy as np
import pytest
import tensorly
import torch
from tensorly.decomposition import tensor_train
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config

from methods import student, tiny
from methods.conformance import assert_conforms
from methods.families import architecture
from methods.interface import Budget, MethodError, Plan, Refusal
from methods.layers import token_tensor_train
from methods.layers.tied_head import TiedHead
from methods.layers.token_tensor_train import TokenTensorTrainEmbedding
from methods.tensor_gpt import TensorGpt, token_cores

LAYERS = [
    (7, 24, (2, 3, 4), (1, 2, 3, 1)),
    (7, 23, (2, 3, 4), (1, 2, 4, 1)),
    (5, 6, (2, 3), (1, 1, 1)),
    (5, 16, (2, 2, 2, 2), (1, 2, 4, 2, 1)),
]


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def product(cores, width):
    """Dense rows by one einsum over all cores, padded rows cut."""
    letters, bonds = "ABCDEF", "abcdefg"
    terms = ",".join(f"v{bonds[k]}{letters[k]}{bonds[k + 1]}" for k in range(len(cores)))
    return torch.einsum(f"{terms}->v{letters[: len(cores)]}", *cores).flatten(1)[:, :width]


def layer(vocab, width, modes, ranks):
    made = TokenTensorTrainEmbedding(vocab, width, modes, ranks).double()
    with torch.no_grad():
        for k, core in enumerate(made.cores):
            core.copy_(random(*core.shape, seed=k))
    return made


@pytest.mark.parametrize(
    ("width", "modes", "ranks"),
    [
        (24, (2, 3, 4), [1, 2, 2, 1]),
        (24, (4, 6), [1, 3, 1]),
        (16, (2, 2, 2, 2), [1, 2, 3, 2, 1]),
        (24, (4, 3, 2), [1, 3, 1, 1]),
    ],
)
def test_cores_multiply_to_what_tensorly_finds_row_by_row(width, modes, ranks):
    weight = random(5, width)
    ours = product(token_cores(weight, modes, ranks), width)
    with tensorly.backend_context("numpy", local_threadsafe=True):
        theirs = [tensor_train(row.numpy().reshape(modes), list(ranks)).to_tensor().ravel() for row in weight]
    torch.testing.assert_close(ours, torch.from_numpy(np.stack(theirs)))


def test_two_cores_are_the_truncated_svd():
    weight = random(4, 30)
    error = (product(token_cores(weight, (5, 6), [1, 2, 1]), 30) - weight).square().sum(1)
    dropped = [np.square(np.linalg.svd(row.numpy().reshape(5, 6))[1][2:]).sum() for row in weight]
    torch.testing.assert_close(error, torch.tensor(dropped))


def test_full_ranks_are_exact_also_when_padded():
    weight = random(6, 22)
    torch.testing.assert_close(product(token_cores(weight, (2, 3, 4), [1, 2, 4, 1]), 22), weight)


def test_a_token_is_decomposed_by_itself(monkeypatch):
    weight = random(9, 24)
    whole = token_cores(weight, (2, 3, 4), [1, 2, 2, 1])
    monkeypatch.setattr("methods.tensor_gpt.CHUNK_ELEMENTS", 2 * 24)
    chunked = token_cores(weight, (2, 3, 4), [1, 2, 2, 1])
    new = token_cores(weight[[4]], (2, 3, 4), [1, 2, 2, 1])
    for core, again, one in zip(whole, chunked, new, strict=True):
        assert torch.equal(core, again)
        assert torch.equal(core[[4]], one)


def test_cores_have_equal_norms_and_a_row_of_zeros_can_still_learn():
    weight = random(3, 24)
    weight[1] = 0
    cores = token_cores(weight, (2, 3, 4), [1, 2, 2, 1])
    norms = torch.stack([core.flatten(1).norm(dim=1) for core in cores])
    torch.testing.assert_close(norms[0, [0, 2]], norms[1, [0, 2]])
    torch.testing.assert_close(norms[0, [0, 2]], norms[2, [0, 2]])
    assert norms[:, 1].tolist() == pytest.approx([2**0.5, 2**0.5, 0])


@pytest.mark.parametrize(("vocab", "width", "modes", "ranks"), LAYERS)
def test_layer_equals_the_dense_embedding_forward_and_backward(vocab, width, modes, ranks, monkeypatch):
    monkeypatch.setattr(token_tensor_train, "CHUNK_ELEMENTS", 3 * width)
    made = layer(vocab, width, modes, ranks)
    dense = product([core.detach() for core in made.cores], width).requires_grad_()
    tokens, hidden = torch.tensor([[0, 3, 1], [3, 4, 2]]), random(2, 3, width)
    upstream = random(2, 3, width, seed=1), random(2, 3, vocab, seed=2)

    wanted = dense[tokens], hidden @ dense.T
    found = made(tokens), made.logits(hidden)
    for ours, theirs in zip((*found, made.materialise()), (*wanted, dense), strict=True):
        torch.testing.assert_close(ours, theirs)

    torch.autograd.backward(wanted, upstream)
    torch.autograd.backward(found, upstream)
    reference = [core.detach().clone().requires_grad_() for core in made.cores]
    product(reference, width).backward(dense.grad)
    for core, other in zip(made.cores, reference, strict=True):
        torch.testing.assert_close(core.grad, other.grad)


@pytest.mark.parametrize(("vocab", "width", "modes", "ranks"), LAYERS)
def test_counts_equal_what_is_held_and_done(vocab, width, modes, ranks):
    made = layer(vocab, width, modes, ranks)
    spec = {"type": "token_tensor_train", "modes": modes, "ranks": ranks}
    assert TokenTensorTrainEmbedding.count(spec, vocab, width) == sum(each.numel() for each in made.parameters())
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        made(torch.zeros(4, dtype=torch.long))
    assert counter.get_total_flops() == 2 * 4 * made.macs_per_token


def test_autocast_leaves_rows_in_the_precision_of_the_cores():
    made = layer(7, 24, (2, 3, 4), (1, 2, 3, 1)).float()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        rows, logits = made(torch.arange(7)), made.logits(torch.ones(1, 24))
    assert (rows.dtype, logits.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(rows, made.materialise().detach(), rtol=0.05, atol=0.05)


def test_logits_build_the_weight_in_chunks(monkeypatch):
    monkeypatch.setattr(token_tensor_train, "CHUNK_ELEMENTS", 2 * 24)
    made = layer(7, 24, (2, 3, 4), (1, 2, 3, 1))
    lengths = []
    rows = made._rows
    monkeypatch.setattr(made, "_rows", lambda cores: lengths.append(len(cores[0])) or rows(cores))
    made.logits(random(1, 24))
    assert lengths == [2, 2, 2, 1]


def test_sizes_on_gpt2_are_the_arithmetic():
    plan = TensorGpt(rank=6).plan(GPT2Config(), None)
    spec = plan.surgery["transformer.wte"]
    assert (spec["modes"], spec["ranks"]) == ([8, 8, 12], [1, 6, 6, 1])
    assert plan.size == 124_439_808 - 50257 * (768 - (8 * 6 + 6 * 8 * 6 + 6 * 12))
    capped = TensorGpt(rank=20, modes=(2, 384)).plan(GPT2Config(), None)
    assert capped == Plan(size=124_439_808)  # 2 x 2 + 2 x 384 numbers are more than 768: dense


def test_every_budget_in_reach_is_met_on_gpt2():
    for thousandths in range(705, 1001, 5):
        budget = Budget(value=thousandths / 1000)
        plan = TensorGpt().plan(GPT2Config(), budget)
        assert isinstance(plan, Plan), plan
        assert budget.met_by(plan.size, 124_439_808)
    assert TensorGpt().plan(GPT2Config(), Budget(value=1.0)).surgery == {}


def test_a_budget_out_of_reach_is_refused_with_the_nearest():
    refusal = TensorGpt().plan(GPT2Config(), Budget(value=0.5))
    assert isinstance(refusal, Refusal)
    assert refusal.nearest == (124_439_808 - 50257 * (768 - 28)) / 124_439_808
    assert "31.0% of the model, and a train of modes [8, 8, 12] keeps at least 28 of its 768" in refusal.reason
    assert isinstance(TensorGpt().plan(GPT2Config(), Budget(value=refusal.nearest)), Plan)
    fixed = TensorGpt(rank=2).plan(GPT2Config(), Budget(value=0.9))
    assert isinstance(fixed, Refusal)
    assert fixed.nearest == pytest.approx((124_439_808 - 50257 * (768 - 72)) / 124_439_808)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"modes": (8,)}, "two or more"),
        ({"modes": (8, 0)}, "two or more"),
        ({"rank": 0}, "rank must be at least 1, not 0"),
        ({"cores": 1}, "cores must be at least 2, not 1"),
    ],
)
def test_bad_fields_are_refused(fields, message):
    with pytest.raises(MethodError, match=message):
        TensorGpt(**fields)


def test_modes_below_the_width_are_refused():
    with pytest.raises(MethodError, match=r"\[8, 8\] multiply to 64, less than the width 768"):
        TensorGpt(modes=(8, 8)).plan(GPT2Config(), Budget(value=0.9))


@pytest.mark.parametrize("label", tiny.TEACHERS)
def test_student_holds_the_decomposed_rows_and_only_those(label):
    teacher = tiny.teacher(label)
    method = TensorGpt(modes=(4, 4, 4), rank=2)
    plan = method.plan(teacher.config, None)
    made = method.compress(teacher, plan, seed=0, statistics={})
    embedding = architecture(teacher.config).embedding
    assert list(plan.surgery) == [embedding]
    assert student.count_params(made) == plan.size
    rows = teacher.get_input_embeddings().weight.detach()
    wanted = product(token_cores(rows, (4, 4, 4), [1, 2, 2, 1]), 48)
    torch.testing.assert_close(made.get_input_embeddings().materialise(), wanted)
    tied = teacher.config.tie_word_embeddings
    assert isinstance(made.lm_head, TiedHead) == tied
    if not tied:
        assert torch.equal(made.lm_head.weight, teacher.lm_head.weight)


def test_padded_modes_conform():
    assert_conforms(TensorGpt(modes=(7, 7)), teachers=["llama"])
