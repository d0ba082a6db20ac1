"""The chunked vocabulary loss against the dense formula, values and gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from harness.engine.vocabulary import VocabularyLoss, check_head, head_weight, vocabulary_loss
from harness.stage import StageFailure
from methods.recipe import Losses


class FactorisedEmbedding(nn.Module):
    """W = L R, looked up by token, tied to a head."""

    def __init__(self, vocabulary, width, rank):
        super().__init__()
        self.left = nn.Parameter(torch.randn(vocabulary, rank) * 0.1)
        self.right = nn.Parameter(torch.randn(rank, width))

    def forward(self, tokens):
        return self.left[tokens] @ self.right


class FactorisedHead(nn.Module):
    def __init__(self, embedding):
        super().__init__()
        self.__dict__["embedding"] = embedding

    @property
    def weight(self):
        return self.embedding.left @ self.embedding.right

    def forward(self, hidden):
        return hidden @ self.weight.T


def tiny_gpt2(vocabulary=31, seed=0):
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=vocabulary, n_embd=8, n_layer=1, n_head=2, n_positions=16, bos_token_id=0, eos_token_id=0
    )
    return GPT2LMHeadModel(config).eval()


def inputs(dtype, positions=13, width=5, vocabulary=17):
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(positions, width, generator=generator, dtype=dtype) for _ in range(2))
    weight, t_weight = (torch.randn(vocabulary, width, generator=generator, dtype=dtype) for _ in range(2))
    bias = torch.randn(vocabulary, generator=generator, dtype=dtype)
    targets = torch.randint(vocabulary, (positions,), generator=generator)
    trained = [tensor.requires_grad_() for tensor in (student, weight, bias)]
    return trained, targets, teacher, t_weight


def dense(trained, targets, teacher, t_weight, ce, kd, temperature):
    student, weight, bias = trained
    logits = F.linear(student, weight, bias)
    log_p = F.log_softmax(logits / temperature, -1)
    q = F.softmax(teacher @ t_weight.T / temperature, -1)
    kl = temperature**2 * (q * (q.log() - log_p)).sum(-1).mean()
    return ce * F.cross_entropy(logits, targets) + kd * kl


@pytest.mark.parametrize(("ce", "kd"), [(1.0, 0.0), (0.0, 1.0), (0.3, 0.7)])
@pytest.mark.parametrize("chunk", [1, 4, 13, 100])
def test_chunks_equal_the_dense_formula(ce, kd, chunk):
    trained, targets, teacher, t_weight = inputs(torch.float32)
    expected = dense(trained, targets, teacher, t_weight, ce, kd, 2.0)
    ours, *_ = vocabulary_loss(
        *trained, targets, teacher_ND=teacher, teacher_weight_VD=t_weight, ce=ce, kd=kd, temperature=2.0, chunk=chunk
    )
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6)
    ours_grads = torch.autograd.grad(2 * ours, trained)
    for grad, whole in zip(ours_grads, torch.autograd.grad(2 * expected, trained), strict=True):
        torch.testing.assert_close(grad, whole, rtol=1e-5, atol=1e-6)


def test_parts_are_the_terms_by_themselves():
    trained, targets, teacher, t_weight = inputs(torch.float64)
    loss, ce, kd = vocabulary_loss(
        *trained, targets, teacher_ND=teacher, teacher_weight_VD=t_weight, ce=0.5, kd=2.0, temperature=2.0
    )
    assert not ce.requires_grad
    assert not kd.requires_grad
    torch.testing.assert_close(loss, 0.5 * ce + 2.0 * kd)
    torch.testing.assert_close(ce, dense(trained, targets, teacher, t_weight, 1.0, 0.0, 2.0))


def test_a_factorised_tied_head_trains_its_factors():
    student, teacher = tiny_gpt2(), tiny_gpt2(seed=1)
    embedding = FactorisedEmbedding(31, 8, 3)
    student.set_input_embeddings(embedding)
    student.lm_head = FactorisedHead(embedding)
    vocabulary = VocabularyLoss(student, teacher, Losses(ce=1.0, kd=1.0))
    assert {id(p) for p in vocabulary.parameters_read()} == {id(embedding.left), id(embedding.right)}
    tokens, targets = torch.randint(31, (2, 2, 9), generator=torch.Generator().manual_seed(0))
    hidden = student.base_model(tokens).last_hidden_state
    teacher_hidden = teacher.base_model(tokens).last_hidden_state.detach()
    loss, *_ = vocabulary(hidden, targets, teacher_hidden)
    factors = [embedding.left, embedding.right]
    ours = torch.autograd.grad(loss, factors)
    logits, teacher_logits = student(tokens).logits.flatten(0, 1), teacher(tokens).logits.flatten(0, 1).detach()
    divergence = F.kl_div(F.log_softmax(logits / 2, -1), F.softmax(teacher_logits / 2, -1), reduction="batchmean")
    expected = F.cross_entropy(logits, targets.flatten()) + 4 * divergence
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    for grad, whole in zip(ours, torch.autograd.grad(expected, factors), strict=True):
        torch.testing.assert_close(grad, whole, rtol=1e-4, atol=1e-6)


def test_vocabularies_must_agree():
    with pytest.raises(StageFailure, match="31 tokens, the teacher's 32"):
        VocabularyLoss(tiny_gpt2(31), tiny_gpt2(32), Losses(kd=1.0))


def test_a_head_that_is_not_linear_is_refused():
    class Capped(nn.Linear):
        def forward(self, hidden):
            return torch.tanh(super().forward(hidden))

    model = tiny_gpt2()
    check_head(model, "student")
    model.lm_head = Capped(8, 31)
    model.lm_head.weight.data.mul_(10)
    with pytest.raises(StageFailure, match="student's logits are not a linear map"):
        check_head(model, "student")
    model.lm_head = nn.Sequential(nn.Linear(8, 31))
    with pytest.raises(StageFailure, match="Sequential has no `weight`"):
        head_weight(model)
