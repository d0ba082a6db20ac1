"""Permutations before the Kronecker fit, judged by the dense error of the fit itself."""

import numpy as np
import pytest
import torch

from methods.layers.permuted_kronecker import inverse
from methods.permutations import kronecker_permutations
from methods.truncated_svd import truncated_svd


def random(rows, columns, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def gpt2_like(rows, columns):
    """Singular values 1 / (1 + i / 8), and a few rows and columns that stand out."""
    left, right = (torch.linalg.qr(random(n, min(rows, columns), n))[0] for n in (rows, columns))
    weight = (left / (1 + torch.arange(min(rows, columns)) / 8)) @ right.T
    weight[:: rows // 4] *= 4
    weight[:, :: columns // 4] *= 4
    return weight


def error(weight, m1, n1, terms):
    """The least relative error of so many terms, from the singular values of the blocks."""
    m2, n2 = weight.shape[0] // m1, weight.shape[1] // n1
    blocks = weight.double().numpy().reshape(m1, m2, n1, n2).transpose(0, 2, 1, 3).reshape(m1 * n1, m2 * n2)
    singular = np.linalg.svd(blocks, compute_uv=False)
    return np.sqrt((singular[terms:] ** 2).sum() / (singular**2).sum())


def shuffled_product(left, right, seed):
    product = torch.kron(random(*left, seed), random(*right, seed + 1))
    generator = torch.Generator().manual_seed(seed)
    rows, columns = (torch.randperm(n, generator=generator) for n in product.shape)
    return product[rows][:, columns]


@pytest.mark.parametrize(("left", "right"), [((12, 16), (2, 2)), ((2, 2), (12, 16)), ((16, 8), (2, 1))])
def test_a_shuffled_kronecker_product_is_found_again(left, right):
    for seed in range(3):
        weight = shuffled_product(left, right, seed)
        rows, columns = kronecker_permutations(weight, *left, rounds=40)
        assert error(weight, *left, 1) > 0.5
        assert error(weight[rows][:, columns], *left, 1) < 1e-5


@pytest.mark.parametrize(
    ("left", "terms"),
    [((24, 12), 1), ((24, 12), 4), ((48, 24), 2), ((8, 6), 4), ((2, 4), 1), ((96, 12), 2), ((96, 24), 1)],
)
def test_permutations_lower_the_error_of_a_matrix_without_order(left, terms):
    weight = gpt2_like(96, 48)
    rows, columns = kronecker_permutations(weight, *left, terms)
    before, after = error(weight, *left, terms), error(weight[rows][:, columns], *left, terms)
    assert after < 0.99 * before


def test_permutations_are_permutations_and_the_same_each_time():
    weight = gpt2_like(96, 48)
    first, second = (kronecker_permutations(weight.clone(), 24, 12, 2, rounds=4) for _ in range(2))
    for one, other, size in zip(first, second, weight.shape, strict=True):
        assert one.dtype == torch.int64
        assert torch.equal(one, other)
        assert torch.equal(one.sort().values, torch.arange(size))
        assert torch.equal(one[inverse(one)], torch.arange(size))
    shuffled = weight[first[0]][:, first[1]]
    assert torch.equal(shuffled[inverse(first[0])][:, inverse(first[1])], weight)


@pytest.mark.parametrize("seed", range(6))
def test_permutations_never_raise_the_error(seed):
    weight = torch.kron(random(6, 4, seed), random(3, 4, seed + 1)) + 0.3 * random(18, 16, seed + 2)
    for left, terms in [((6, 4), 1), ((3, 8), 2), ((9, 2), 3)]:
        rows, columns = kronecker_permutations(weight, *left, terms, rounds=2)
        assert error(weight[rows][:, columns], *left, terms) <= error(weight, *left, terms) + 1e-9


def test_a_matrix_that_is_a_product_or_zero_already_is_left_as_good():
    product = torch.kron(random(6, 4), random(3, 4, 1))
    rows, columns = kronecker_permutations(product, 6, 4)
    assert error(product[rows][:, columns], 6, 4, 1) < 1e-6
    rows, columns = kronecker_permutations(torch.zeros(18, 16), 6, 4)
    assert torch.equal(rows.sort().values, torch.arange(18))


def test_rows_are_not_permuted_where_blocks_are_one_row_high():
    """Permuting A's rows alone changes nothing."""
    rows, columns = kronecker_permutations(gpt2_like(32, 16), 32, 8)
    assert not torch.equal(columns, torch.arange(16))
    left, right = truncated_svd(gpt2_like(32, 16)[rows][:, columns].reshape(256, 2), 1)
    assert left.shape == (256, 1)
    assert right.isfinite().all()
