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


def distance(a, b):
    return np.linalg.norm(np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64))


@pytest.mark.parametrize(("rows", "columns", "rank"), [(20, 30, 7), (30, 20, 7), (16, 16, 1), (16, 16, 16)])
def test_truncated_svd_is_optimal_and_balanced(rows, columns, rank):
    weight = matrix(rows, columns)
    left, right = truncated_svd(weight, rank)
    singular = np.linalg.svd(weight.double().numpy(), compute_uv=False)
    optimum = np.sqrt((singular[rank:] ** 2).sum())
    assert distance(left @ right, weight) == pytest.approx(optimum, rel=1e-7, abs=1e-6)
    np.testing.assert_allclose(np.linalg.norm(left, axis=0), np.sqrt(singular[:rank]), rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(right, axis=1), np.sqrt(singular[:rank]), rtol=1e-6)


@pytest.mark.parametrize("shape", [(24, 8), (12, 16), (3, 2), (24, 1), (1, 16), (8, 8)])
def test_nearest_kronecker_is_optimal(shape):
    weight = matrix(24, 16).double()
    m1, n1 = shape
    a, b = nearest_kronecker(weight, m1, n1)
    blocks = [weight[i * (24 // m1) : (i + 1) * (24 // m1), j * (16 // n1) : (j + 1) * (16 // n1)].reshape(-1)
              for i in range(m1) for j in range(n1)]  # fmt: skip
    singular = np.linalg.svd(torch.stack(blocks).numpy(), compute_uv=False)
    assert distance(np.kron(a, b), weight) == pytest.approx(np.sqrt((singular[1:] ** 2).sum()), rel=1e-9)


def test_nearest_kronecker_large_and_balanced_uses_the_iterative_solver():
    a, b = matrix(12, 12, 1).double(), matrix(9, 8, 2).double()
    weight = torch.kron(a, b) + 1e-3 * matrix(108, 96, 3)
    first, second = nearest_kronecker(weight, 12, 12), nearest_kronecker(weight, 12, 12)
    assert distance(np.kron(*first), torch.kron(a, b)) < 1e-2 * torch.linalg.vector_norm(weight)
    assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))


def test_a_zero_matrix_has_zero_factors():
    a, b = nearest_kronecker(torch.zeros(4, 6), 2, 3)
    assert distance(np.kron(a, b), np.zeros((4, 6))) == 0
    left, right = truncated_svd(torch.zeros(4, 6), 2)
    assert distance(left @ right, np.zeros((4, 6))) == 0


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
    rearranged = weight.reshape(4, 5, 3, 6).permute(0, 2, 1, 3).reshape(12, 30).numpy()
    singular = np.linalg.svd(rearranged, compute_uv=False)
    assert distance(contracted(cores), weight) == pytest.approx(np.sqrt((singular[5:] ** 2).sum()), rel=1e-9)


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
