"""Decompositions against dense singular values from numpy, in float64."""

import numpy as np
import pytest
import torch

from methods.interface import Budget
from methods.nearest_kronecker import nearest_kronecker
from methods.truncated_svd import truncated_svd
from methods.tt_svd import even_factors, max_ranks, tt_svd


def matrix(rows, columns, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def decaying(rows, columns, spectrum, seed=0):
    """A float32 matrix of these singular values."""
    left, right = (torch.linalg.qr(matrix(n, len(spectrum), seed + n).double())[0] for n in (rows, columns))
    return ((left * torch.as_tensor(spectrum)) @ right.T).float()


def distance(a, b):
    return np.linalg.norm(np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64))


def optimum(weight, rank):
    """The smallest distance of a matrix of this rank."""
    array = np.asarray(weight, dtype=np.float64)
    triangle = np.linalg.qr(array if array.shape[0] > array.shape[1] else array.T, mode="r")
    return np.sqrt((np.linalg.svd(triangle, compute_uv=False)[rank:] ** 2).sum())


def rearranged(weight, m1, n1):
    """One row per block of the matrix."""
    m2, n2 = weight.shape[0] // m1, weight.shape[1] // n1
    return weight.unfold(0, m2, m2).unfold(1, n2, n2).reshape(m1 * n1, m2 * n2)


def summed(left, right):
    return sum(np.kron(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize(("rows", "columns", "rank"), [(20, 30, 7), (30, 20, 7), (16, 16, 1), (16, 16, 16)])
def test_truncated_svd_is_optimal_and_balanced(rows, columns, rank):
    weight = matrix(rows, columns)
    left, right = truncated_svd(weight, rank)
    assert left.dtype == right.dtype == torch.float64
    assert distance(left @ right, weight) == pytest.approx(optimum(weight, rank), rel=1e-9, abs=1e-10)
    root = np.sqrt(np.linalg.svd(weight.double().numpy(), compute_uv=False)[:rank])
    np.testing.assert_allclose(np.linalg.norm(left, axis=0), root, rtol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(right, axis=1), root, rtol=1e-9)


@pytest.mark.parametrize("rank", [1, 5, 60, 200])
@pytest.mark.parametrize(
    "spectrum",
    [1 / (1 + np.arange(288) / 32), 1e3 ** -(np.arange(288) / 288), np.r_[1e4, np.ones(287)], np.ones(288)],
    ids=["slow", "fast", "spike", "flat"],
)
def test_truncated_svd_of_larger_matrices_is_optimal_to_2e_6(spectrum, rank):
    weight = decaying(320, 288, spectrum)
    left, right = truncated_svd(weight, rank)
    assert distance(left @ right, weight) <= optimum(weight, rank) * (1 + 2e-6)


@pytest.mark.parametrize("tail", [0.0, 1e-9, 1e-6])
@pytest.mark.parametrize("rank", [4, 6, 60])
def test_truncated_svd_where_next_to_nothing_is_dropped(tail, rank):
    spectrum = np.r_[np.full(6, 1.0), np.full(282, tail)]
    weight = decaying(320, 288, spectrum).double()
    left, right = truncated_svd(weight, rank)
    assert distance(left @ right, weight) <= optimum(weight, rank) * (1 + 2e-6) + 1e-12
    assert left.isfinite().all()
    assert right.isfinite().all()


@pytest.mark.parametrize("shape", [(320, 288), (288, 288), (12, 40)])
def test_truncated_svd_is_exact_at_full_rank(shape):
    weight = decaying(*shape, 1e6 ** -(np.arange(min(shape)) / min(shape)))
    left, right = truncated_svd(weight, min(shape))
    assert distance(left @ right, weight) < 1e-10


@pytest.mark.parametrize("terms", [1, 3])
@pytest.mark.parametrize("shape", [(24, 8), (12, 16), (3, 4), (6, 4), (8, 8)])
def test_nearest_kronecker_is_optimal(shape, terms):
    weight = matrix(24, 16)
    left, right = nearest_kronecker(weight, *shape, min(terms, 384 // (shape[0] * shape[1])))
    assert distance(summed(left, right), weight) == pytest.approx(optimum(rearranged(weight, *shape), len(left)))
    np.testing.assert_allclose(np.linalg.norm(left, axis=(1, 2)), np.linalg.norm(right, axis=(1, 2)), rtol=1e-9)


@pytest.mark.parametrize("shape", [(24, 16), (1, 1), (24, 1), (1, 16), (3, 2), (12, 8)])
def test_nearest_kronecker_of_all_terms_is_exact(shape):
    weight = matrix(24, 16)
    count = shape[0] * shape[1]
    left, right = nearest_kronecker(weight, *shape, min(count, 384 // count))
    assert tuple(left.shape[1:]) == shape
    assert distance(summed(left, right), weight) < 1e-10


@pytest.mark.parametrize("shape", [(288, 384), (144, 768), (18, 24), (32, 16), (1, 2)])
@pytest.mark.parametrize("terms", [1, 2])
def test_nearest_kronecker_of_larger_matrices_is_optimal_to_2e_6(shape, terms):
    weight = decaying(288, 768, 1 / (1 + np.arange(288) / 32))
    left, right = nearest_kronecker(weight, *shape, terms)
    wanted = optimum(rearranged(weight, *shape), terms)
    assert distance(summed(left, right), weight) <= wanted * (1 + 2e-6) + 1e-12
    again = nearest_kronecker(weight.clone(), *shape, terms)
    assert torch.equal(left, again[0])
    assert torch.equal(right, again[1])


def test_nearest_kronecker_finds_a_large_exact_product():
    a, b = matrix(24, 20, 1).double(), matrix(16, 18, 2).double()
    left, right = nearest_kronecker(torch.kron(a, b).float(), 24, 20)
    assert distance(summed(left, right), torch.kron(a, b).float()) < 1e-6 * torch.linalg.vector_norm(a).item() * 16
    left, right = nearest_kronecker(torch.kron(a, b), 24, 20, 2)
    assert distance(summed(left, right), torch.kron(a, b)) < 1e-10


@pytest.mark.parametrize("shape", [(4, 6), (300, 400)])
def test_a_zero_matrix_has_zero_factors(shape):
    weight = torch.zeros(shape)
    left, right = nearest_kronecker(weight, 2, 2)
    assert distance(summed(left, right), weight) == 0
    left, right = nearest_kronecker(weight, shape[0] // 2, shape[1] // 2)
    assert distance(summed(left, right), weight) == 0
    left, right = truncated_svd(weight, 2)
    assert distance(left @ right, weight) == 0


@pytest.mark.parametrize(("out_modes", "in_modes"), [((4, 5), (3, 6)), ((2, 3, 4), (3, 2, 2))])
def test_tt_svd_is_exact_at_full_ranks(out_modes, in_modes):
    weight = matrix(int(np.prod(out_modes)), int(np.prod(in_modes)))
    cores = tt_svd(weight, out_modes, in_modes, max_ranks(out_modes, in_modes))
    assert distance(contracted(cores), weight) < 1e-10
    norms = [float(torch.linalg.vector_norm(core)) for core in cores]
    assert max(norms) == pytest.approx(min(norms))


def test_tt_svd_of_two_cores_is_optimal():
    weight = matrix(20, 18).double()
    cores = tt_svd(weight, (4, 5), (3, 6), (1, 5, 1))
    wanted = optimum(weight.reshape(4, 5, 3, 6).permute(0, 2, 1, 3).reshape(12, 30), 5)
    assert distance(contracted(cores), weight) == pytest.approx(wanted, rel=1e-9)


def test_tt_svd_is_within_its_bound_and_near_the_best_of_each_unfolding():
    weight = decaying(192, 480, 1 / (1 + np.arange(192) / 16))
    out_modes, in_modes, ranks = (4, 6, 8), (6, 8, 10), (1, 20, 40, 1)
    cores = tt_svd(weight, out_modes, in_modes, ranks)
    assert [core.shape[0] for core in cores] == [1, 20, 40]
    folded = weight.double().numpy().reshape(*out_modes, *in_modes).transpose(0, 3, 1, 4, 2, 5)
    dropped = [optimum(folded.reshape(24, -1), 20), optimum(folded.reshape(-1, 80), 40)]
    error = distance(contracted(cores), weight)
    assert max(dropped) <= error <= np.hypot(*dropped) * (1 + 1e-9)
    step = np.linalg.svd(folded.reshape(24, -1), full_matrices=False)
    rest = (step[1][:20, None] * step[2][:20]).reshape(20 * 48, 80)
    assert error == pytest.approx(np.hypot(dropped[0], optimum(rest, 40)), rel=2e-6)


def test_tt_svd_pads_a_matrix_that_its_modes_exceed():
    weight = matrix(13, 17)
    cores = tt_svd(weight, (2, 7), (3, 6), (1, 4, 1))
    padded = np.zeros((14, 18))
    padded[:13, :17] = weight
    wanted = optimum(padded.reshape(2, 7, 3, 6).transpose(0, 2, 1, 3).reshape(6, 42), 4)
    assert distance(contracted(cores), padded) == pytest.approx(wanted, rel=1e-9)
    with pytest.raises(AssertionError, match="do not hold"):
        tt_svd(weight, (2, 6), (3, 6), (1, 4, 1))


def contracted(cores):
    weight = np.ones((1, 1, 1))
    for core in (each.numpy() for each in cores):
        weight = np.einsum("oir,rmns->omins", weight, core)
        weight = weight.reshape(weight.shape[0] * weight.shape[1], -1, core.shape[3])
    return weight[..., 0]


@pytest.mark.parametrize(
    ("number", "length", "wanted"), [(768, 3, (8, 8, 12)), (576, 2, (24, 24)), (7, 2, (1, 7)), (192, 3, (4, 6, 8))]
)
def test_even_factors(number, length, wanted):
    assert even_factors(number, length) == wanted


def test_budget_at_the_edge_of_its_tolerance():
    assert Budget(value=0.5).met_by(51, 100)
    assert not Budget(value=0.5).met_by(52, 100)
