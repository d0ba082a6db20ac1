"""Codes, tables and scores of a coded embedding, against numpy; its error falls with codes and values."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from transformers import GPT2Config

from methods import conformance, student, tiny
from methods.embedding_codes import fit_tables, quantile_codes
from methods.embedding_svd import EmbeddingSvd
from methods.families import architecture
from methods.fields import decode
from methods.interface import Budget, MethodError, Plan, Refusal
from methods.layers.code_embedding import CodeEmbedding
from methods.layers.tied_head import TiedHead


def embedding(rows=90, columns=12):
    rng = np.random.default_rng(0)
    return rng.standard_normal((rows, columns)) * (1 / (1 + np.arange(columns))) @ rng.standard_normal((columns,) * 2)


def one_hot(codes, values):
    """A (V x t c): the design matrix of the least-squares problem."""
    return np.concatenate([np.eye(values)[codes[:, j]] for j in range(codes.shape[1])], axis=1)


def test_codes_are_quantile_bins_of_the_singular_vectors():
    weight = embedding()
    codes = quantile_codes(torch.from_numpy(weight), 3, 4).numpy()
    left = np.linalg.svd(weight)[0][:, :3]
    for j in range(3):
        assert np.bincount(codes[:, j]).tolist() == [23, 22, 23, 22]
        column = left[:, j] * np.sign(np.corrcoef(left[:, j], codes[:, j])[0, 1])
        for value in range(3):
            assert column[codes[:, j] == value].max() < column[codes[:, j] == value + 1].min()


def test_ties_go_by_token_number():
    weight = torch.ones(6, 1)
    assert quantile_codes(weight, 1, 3)[:, 0].tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(("codes", "values"), [(1, 5), (3, 4), (4, 20)])
def test_tables_are_the_least_squares_solution_of_the_smallest_norm(codes, values):
    weight = embedding()
    found = quantile_codes(torch.from_numpy(weight), codes, values)
    tables = fit_tables(torch.from_numpy(weight), found, values).numpy()
    design = one_hot(found.numpy(), values)
    expected = np.linalg.pinv(design) @ weight
    best, ours = (np.linalg.norm(weight - design @ x) for x in (expected, tables.reshape(-1, 12)))
    assert ours == pytest.approx(best, rel=1e-9)
    np.testing.assert_allclose(tables.reshape(-1, 12), expected, atol=1e-4)


def error(weight, codes, values):
    found = quantile_codes(weight, codes, values)
    tables = fit_tables(weight, found, values)
    rows = sum(tables[j][found[:, j]] for j in range(codes))
    return float(torch.linalg.matrix_norm(weight - rows))


def test_the_error_falls_with_codes_and_with_values():
    """Bins of 2 c quantiles refine those of c, and t + 1 codes hold the t before: a larger least-squares problem."""
    weight = torch.from_numpy(embedding(96, 12))
    by_values = [error(weight, 3, values) for values in (2, 4, 8, 16)]
    by_codes = [error(weight, codes, 4) for codes in (1, 2, 4, 8)]
    for errors in (by_values, by_codes):
        assert all(b < 0.97 * a for a, b in pairwise(errors))


def test_rows_and_logits_are_sums_over_codes():
    generator = torch.Generator().manual_seed(0)
    layer = CodeEmbedding(11, 6, codes=3, values=4).double()
    torch.nn.init.normal_(layer.tables, generator=generator)
    layer.codes.copy_(torch.randint(4, (11, 3), generator=generator))
    dense = one_hot(layer.codes.numpy().astype(int), 4) @ layer.tables.detach().numpy().reshape(12, 6)
    tokens, hidden = torch.tensor([[1, 10], [0, 1]]), torch.randn(2, 5, 6, dtype=torch.float64, generator=generator)
    np.testing.assert_allclose(layer.materialise().detach(), dense, atol=1e-12)
    np.testing.assert_allclose(layer(tokens).detach(), dense[tokens.numpy()], atol=1e-12)
    np.testing.assert_allclose(layer.logits(hidden).detach(), hidden.numpy() @ dense.T, atol=1e-12)
    assert (layer.num_params, layer.macs_per_token, layer.head_macs_per_token) == (72, 0, 72)
    assert layer.codes.dtype == torch.int16
    with torch.device("meta"):
        assert CodeEmbedding(100_000, 4, codes=1, values=40_000).codes.dtype == torch.int32


@pytest.mark.parametrize("label", ["gpt2", "llama-untied"])
def test_a_tied_head_shares_the_codes_and_an_untied_one_stays_dense(label, tmp_path):
    teacher = tiny.teacher(label)
    plan = EmbeddingSvd(codes=4).plan(teacher.config, Budget(value=0.97))
    assert isinstance(plan, Plan)
    path = architecture(teacher.config).embedding
    assert list(plan.surgery) == [path]
    made = EmbeddingSvd(codes=4).compress(teacher, plan, seed=0, statistics={})
    assert isinstance(made.lm_head, TiedHead) == (label == "gpt2")
    if label == "gpt2":
        assert made.lm_head.emb is made.get_submodule(path)
    else:
        assert torch.equal(made.lm_head.weight, teacher.lm_head.weight)
    student.save(made, tmp_path)
    assert torch.equal(student.load(tmp_path).get_submodule(path).codes, made.get_submodule(path).codes)


@pytest.mark.parametrize("tied", [True, False])
def test_gpt2_small_spends_the_budget_on_values(tied):
    config = GPT2Config(tie_word_embeddings=tied)
    whole = architecture(config).num_params
    plan = EmbeddingSvd().plan(config, Budget(value=0.8))
    assert isinstance(plan, Plan)
    values = plan.surgery["transformer.wte"]["values"]
    assert plan.size == whole - 50257 * 768 + 8 * values * 768
    assert 0 <= round(0.8 * whole) - plan.size < 8 * 768
    with torch.device("meta"):
        assert student.count_params(student.build(config, plan.surgery)) == plan.size


def test_what_the_embedding_cannot_give_is_refused_with_the_nearest():
    refusal = EmbeddingSvd().plan(GPT2Config(), Budget(value=0.66))
    assert isinstance(refusal, Refusal)
    assert refusal.nearest == pytest.approx((124_439_808 - 38_597_376 + 8 * 2 * 768) / 124_439_808)
    plan = EmbeddingSvd().plan(GPT2Config(), Budget(value=refusal.nearest))
    assert plan.surgery["transformer.wte"]["values"] == 2
    too_large = EmbeddingSvd().plan(GPT2Config(), Budget(value=10**9))
    assert isinstance(too_large, Refusal)
    assert too_large.nearest == 1.0


def test_a_full_budget_is_the_teacher():
    assert EmbeddingSvd().plan(GPT2Config(), Budget(value=1.0)) == Plan(size=124_439_808)


def test_impossible_fields_are_refused_by_name():
    with pytest.raises(MethodError, match="codes: 0 is too few; nearest: 1"):
        decode("embedding_svd", {"codes": 0})
    with pytest.raises(MethodError, match="codes: 49 of an embedding 96 x 48; nearest: 48"):
        EmbeddingSvd(codes=49).plan(tiny.config("gpt2"), Budget(value=0.97))


def test_other_numbers_of_codes_conform():
    findings = conformance.check_method(EmbeddingSvd(codes=3), fast=True)
    assert [each for each in findings if each.status == "failed"] == []
