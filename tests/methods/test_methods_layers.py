"""Factorised layers against the dense weight that numpy builds."""

from functools import reduce
from math import prod

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from methods import registry
from methods.interface import MethodError
from methods.layers.factorised import count, layer_class
from methods.layers.kronecker import KroneckerEmbedding
from methods.layers.tied_head import TiedHead

LINEAR = [
    (12, 8, {"type": "low_rank", "rank": 3}),
    (12, 8, {"type": "kronecker", "left": [12, 4], "splits": 1}),
    (12, 8, {"type": "kronecker", "left": [6, 8], "splits": 1}),
    (12, 8, {"type": "kronecker", "left": [3, 2], "splits": 1}),
    (12, 8, {"type": "kronecker", "left": [1, 8], "splits": 1}),
    (36, 8, {"type": "kronecker", "left": [6, 4], "splits": 3}),
    (36, 8, {"type": "kronecker", "left": [2, 2], "splits": 3}),
    (36, 8, {"type": "kronecker", "left": [6, 4], "splits": 3, "terms": 2}),
    (36, 8, {"type": "kronecker", "left": [4, 2], "splits": 3, "terms": 2, "scaled": True}),
    (12, 8, {"type": "kronecker", "left": [2, 2], "splits": 1, "terms": 3, "scaled": True}),
    (36, 8, {"type": "permuted_kronecker", "left": [6, 4], "splits": 3, "terms": 2, "scaled": True}),
    (12, 8, {"type": "permuted_kronecker", "left": [2, 8], "splits": 1}),
    (12, 8, {"type": "tensor_train", "out_modes": [3, 4], "in_modes": [2, 4], "ranks": [1, 6, 1]}),
    (12, 8, {"type": "tensor_train", "out_modes": [2, 2, 3], "in_modes": [2, 2, 2], "ranks": [1, 1, 2, 1]}),
    (12, 8, {"type": "tensor_train", "out_modes": [4, 3, 1], "in_modes": [1, 2, 4], "ranks": [1, 3, 3, 1]}),
    (12, 8, {"type": "tensor_train", "out_modes": [1, 3, 4], "in_modes": [4, 2, 1], "ranks": [1, 3, 3, 1]}),
    (12, 8, {"type": "tensor_train", "out_modes": [1, 12, 1], "in_modes": [2, 2, 2], "ranks": [1, 2, 2, 1]}),
    (11, 7, {"type": "tensor_train", "out_modes": [2, 3, 2], "in_modes": [2, 2, 2], "ranks": [1, 2, 2, 1]}),
    (64, 64, {"type": "tensor_train", "out_modes": [4, 4, 4], "in_modes": [4, 4, 4], "ranks": [1, 2, 3, 1]}),
]


OUTSIDE = """
from methods.interface import Method
from methods.layers.factorised import Factorised


class DiagonalLinear(Factorised, kind="diagonal"):
    @classmethod
    def count(cls, spec, out_features, in_features):
        return min(out_features, in_features)


class Diagonal(Method):
    pass
"""


def filled(out_features, in_features, spec, *, bias=True):
    layer = layer_class(spec["type"]).from_spec(spec, out_features, in_features, bias=bias).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        for buffer in layer.buffers():
            buffer.copy_(torch.randperm(buffer.numel(), generator=generator))
    return layer


def dense_by_numpy(layer):
    """W (out x in) from the factors, by the definitions."""
    factors = {name: each.detach().numpy() for name, each in layer.named_parameters() if name != "bias"}
    if "core_0" in factors:
        cores = [factors[f"core_{k}"] for k in range(len(factors))]
        weight = np.zeros((prod(core.shape[1] for core in cores), prod(core.shape[2] for core in cores)))
        for i, row in enumerate(np.ndindex(*(core.shape[1] for core in cores))):
            for j, column in enumerate(np.ndindex(*(core.shape[2] for core in cores))):
                product = np.eye(1)
                for core, a, b in zip(cores, row, column, strict=True):
                    product = product @ core[:, a, b, :]
                weight[i, j] = product.item()
        return weight[: layer.out_features, : layer.in_features]
    left, right = factors["left"], factors["right"]
    if left.ndim == 2:
        return left @ right
    scales = factors.get("scales", np.ones(left.shape[:2]))
    splits = [
        sum(s * np.kron(a, b) for s, a, b in zip(*each, strict=True)) for each in zip(scales, left, right, strict=True)
    ]
    weight = np.concatenate(splits)
    if hasattr(layer, "rows"):
        permuted = np.empty_like(weight)
        permuted[np.ix_(layer.rows.numpy(), layer.columns.numpy())] = weight
        return permuted
    return weight


@pytest.mark.parametrize(("out_features", "in_features", "spec"), LINEAR)
@pytest.mark.parametrize("bias", [True, False])
def test_forward_is_the_dense_product(out_features, in_features, spec, bias):
    layer = filled(out_features, in_features, spec, bias=bias)
    x = torch.randn(2, 5, in_features, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weight = dense_by_numpy(layer)
    wanted = x.numpy() @ weight.T + (layer.bias.detach().numpy() if bias else 0)
    np.testing.assert_allclose(layer(x).detach().numpy(), wanted, atol=1e-10)
    np.testing.assert_allclose(layer.materialise().detach().numpy(), weight, atol=1e-10)
    np.testing.assert_allclose(layer(x[0, 0]).detach().numpy(), wanted[0, 0], atol=1e-10)


@pytest.mark.parametrize(("out_features", "in_features", "spec"), LINEAR)
def test_counts_are_what_is_held_and_done(out_features, in_features, spec):
    layer = filled(out_features, in_features, spec)
    assert layer.num_params == count(spec, out_features, in_features) + out_features
    flops = []
    for tokens in (3, 4):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            layer(torch.zeros(tokens, in_features, dtype=torch.float64))
        flops.append(counter.get_total_flops())
    assert 2 * layer.macs_per_token == flops[1] - flops[0]


def test_kronecker_takes_the_cheaper_order():
    layer = filled(64, 64, {"type": "kronecker", "left": [2, 64], "splits": 1})
    assert layer.macs_per_token == min(2 * 1 * (64 + 32), 64 * 32 * 1 + 2 * 64 * 32)


@pytest.mark.parametrize("factors", [[4], [2, 2]])
def test_kronecker_embedding_and_its_head(factors):
    spec = {"type": "kronecker.embedding", "factors": factors}
    embedding = KroneckerEmbedding.from_spec(spec, 10, 12, bias=False).double()
    assert embedding.num_params == count(spec, 10, 12) == 10 * 3 + 4
    with torch.no_grad():
        for parameter in embedding.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(0))
    names = ["left", *(f"right_{j}" for j in range(len(factors)))]
    weight = reduce(np.kron, [embedding.get_parameter(name).detach().numpy() for name in names])
    tokens = torch.tensor([[0, 9, 3], [7, 7, 1]])
    hidden = torch.randn(2, 3, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    head = TiedHead(embedding)
    np.testing.assert_allclose(embedding(tokens).detach().numpy(), weight[tokens.numpy()], atol=1e-12)
    np.testing.assert_allclose(head(hidden).detach().numpy(), hidden.numpy() @ weight.T, atol=1e-12)
    np.testing.assert_allclose(head.weight.detach().numpy(), weight, atol=1e-12)
    assert list(head.parameters()) == []
    assert head.macs_per_token == 10 * 3 + 12


def test_a_method_outside_brings_its_own_layer(tmp_path, monkeypatch):
    (tmp_path / "diagonal_method.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_targets", lambda: {"diagonal": "diagonal_method:Diagonal"})
    assert count({"type": "diagonal"}, 4, 4) == 4


def test_an_unknown_layer_type_names_the_nearest():
    layer_class("low_rank")
    with pytest.raises(MethodError, match=r"layer type 'low_ronk' is not known; did you mean 'low_rank'"):
        layer_class("low_ronk")
