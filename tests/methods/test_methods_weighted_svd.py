"""Weighted low-rank factors against the error computed by hand, and against optima found another way."""

import numpy as np
import pytest
import torch

from methods.truncated_svd import truncated_svd
from methods.weighted_svd import scaled_svd, whitened_svd, whitened_values, whitening


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def optimum(weight, rank):
    return np.sqrt((np.linalg.svd(np.asarray(weight), compute_uv=False)[rank:] ** 2).sum())


def output_loss(weight, left, right, inputs):
    """|| W X - L R X ||_F^2 output by output."""
    return float(sum((weight @ x - left @ (right @ x)).square().sum() for x in inputs.T))


@pytest.mark.parametrize("shape", [(9, 14), (14, 9)])
@pytest.mark.parametrize("which", ["rows", "columns", "both", "none"])
def test_scaled_svd_is_optimal_in_its_norm(shape, which):
    weight = random(*shape)
    rows = random(shape[0], seed=1).abs() + 0.01 if which in ("rows", "both") else None
    columns = 1e3 * random(shape[1], seed=2).abs() if which in ("columns", "both") else None
    left, right = scaled_svd(weight, 4, rows=rows, columns=columns)
    by_row = np.ones(shape[0]) if rows is None else rows.numpy()
    by_column = np.ones(shape[1]) if columns is None else columns.numpy()
    error = np.diag(by_row) @ (weight - left @ right).numpy() @ np.diag(by_column)
    wanted = optimum(np.diag(by_row) @ weight.numpy() @ np.diag(by_column), 4)
    assert np.linalg.norm(error) == pytest.approx(wanted, rel=1e-8)


def test_scaled_svd_without_scales_is_the_plain_one_and_scales_have_no_unit():
    weight = random(9, 14)
    columns = random(14, seed=2).abs()
    for one, other in [
        (scaled_svd(weight, 4), truncated_svd(weight, 4)),
        (scaled_svd(weight, 4, columns=torch.zeros(14)), truncated_svd(weight, 4)),
        (scaled_svd(weight, 4, columns=columns), scaled_svd(weight, 4, columns=1e8 * columns)),
    ]:
        np.testing.assert_allclose(one[0] @ one[1], other[0] @ other[1], rtol=1e-9)


def test_scaled_svd_fits_what_has_no_weight_within_the_subspace_of_the_rest():
    weight = random(9, 14)
    rows = random(9, seed=1).abs() + 0.1
    rows[3] = 0
    left, right = scaled_svd(weight, 4, rows=rows)
    assert left.isfinite().all()
    basis = np.linalg.svd((rows[:, None] * weight).numpy())[2][:4]
    np.testing.assert_allclose((left @ right)[3], weight[3].numpy() @ basis.T @ basis, rtol=1e-4)


@pytest.mark.parametrize("shape", [(9, 14), (14, 9)])
def test_whitened_svd_minimises_the_output_error(shape):
    weight, inputs = random(*shape), random(shape[1], shape[1], seed=1) @ random(shape[1], 200, seed=2)
    left, right = whitened_svd(weight, 4, inputs @ inputs.T)
    wanted = optimum(weight @ inputs, 4) ** 2
    assert output_loss(weight, left, right, inputs) == pytest.approx(wanted, rel=1e-8)
    plain = output_loss(weight, *truncated_svd(weight, 4), inputs)
    assert plain > 1.05 * wanted
    balanced = (right @ whitening(inputs @ inputs.T)).norm(dim=1)
    np.testing.assert_allclose(left.norm(dim=0), balanced, rtol=1e-9)


@pytest.mark.parametrize("shape", [(9, 14), (14, 9)])
def test_dropped_whitened_values_are_the_output_loss(shape):
    weight, inputs = random(*shape), random(shape[1], 50, seed=1)
    gram = inputs @ inputs.T
    values = whitened_values(weight, gram)
    assert values.shape == (9,)
    for rank in (1, 4, 8):
        loss = output_loss(weight, *whitened_svd(weight, rank, gram), inputs)
        assert float(values[rank:].square().sum()) == pytest.approx(loss, rel=1e-8)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_gram_matrix_of_too_few_inputs_is_repaired(scale):
    weight, inputs = random(9, 14), scale * random(14, 5, seed=1)
    gram = inputs @ inputs.T
    root = whitening(gram)
    shift = 1e-6 * max(1.0, float(gram.diagonal().mean()))
    np.testing.assert_allclose(root @ root.T, gram + shift * torch.eye(14), rtol=1e-6, atol=1e-9)
    left, right = whitened_svd(weight, 5, gram)
    bound = shift * float(weight.square().sum())  # what no factor of rank 5 can lose, the inputs having rank 5
    assert output_loss(weight, left, right, inputs) <= bound


def test_a_gram_matrix_of_zeros_gives_the_plain_factors():
    weight = random(9, 14)
    left, right = whitened_svd(weight, 4, torch.zeros(14, 14))
    plain = truncated_svd(weight, 4)
    np.testing.assert_allclose(left @ right, plain[0] @ plain[1], rtol=1e-9)
