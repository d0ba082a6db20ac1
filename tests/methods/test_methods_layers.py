"""Factorised layers against the dense weight that numpy builds."""

import copy
from functools import reduce
from itertools import permutations
from math import prod

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from methods import registry
from methods.interface import MethodError
from methods.layers import kronecker, low_rank, tensor_train
from methods.layers.factorised import cheapest, count, layer_class
from methods.layers.kronecker import KroneckerEmbedding, KroneckerLinear
from methods.layers.tensor_train import TensorTrainLinear, core_macs
from methods.layers.tied_head import TiedHead
from methods.tensor_train_modes import fast_modes

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


def ways(layer):
    if isinstance(layer, TensorTrainLinear):
        return tensor_train.every_way(*layer._modes)
    if isinstance(layer, KroneckerLinear):
        return kronecker.every_way(*layer.left.shape[:2], layer.left.shape[2:], layer.right.shape[2:])
    return low_rank.every_way(layer.out_features, layer.in_features, layer.left.shape[1])


@pytest.mark.parametrize(("out_features", "in_features", "spec"), LINEAR)
@pytest.mark.parametrize("bias", [True, False])
def test_every_way_has_the_value_and_gradients_of_the_dense_product(monkeypatch, out_features, in_features, spec, bias):
    """Dense: the product with `materialise()`, which is tested against numpy; 3 and 9 tokens, few and many rows."""
    layer = filled(out_features, in_features, spec, bias=bias)
    for tokens in (1, 3, 9):
        generator = torch.Generator().manual_seed(tokens)
        x, upstream = (torch.randn(tokens, n, generator=generator).double() for n in (in_features, out_features))
        x.requires_grad_()
        inputs = (x, *layer.parameters())
        wanted = F.linear(x, layer.materialise(), layer.bias)
        gradients = torch.autograd.grad(wanted, inputs, upstream)
        for way in ways(layer):
            monkeypatch.setattr(layer, "_ways", (way,))
            found = layer(x)
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)
            for ours, theirs in zip(torch.autograd.grad(found, inputs, upstream), gradients, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("size", "spec"),
    [
        (64, {"type": "low_rank", "rank": 40}),
        (64, {"type": "kronecker", "left": [32, 32], "splits": 1, "terms": 4}),
        (64, {"type": "tensor_train", "out_modes": [4, 4, 4], "in_modes": [4, 4, 4], "ranks": [1, 16, 16, 1]}),
    ],
)
def test_the_weight_is_rebuilt_for_many_tokens_only(size, spec):
    layer = filled(size, size, spec).float()

    def macs(tokens):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            layer(torch.zeros(tokens, size))
        return counter.get_total_flops() // 2

    assert layer.macs_per_token > size * size
    assert macs(8) - macs(4) == 4 * layer.macs_per_token
    assert macs(8000) - macs(4000) == 4000 * size * size


def test_a_layer_that_saves_multiply_adds_is_never_rebuilt():
    layer = filled(768, 768, {"type": "kronecker", "left": [384, 768], "splits": 1})
    assert cheapest(layer._ways, 1_000_000).order == "left_first"


@pytest.mark.parametrize(("out_features", "in_features", "spec"), LINEAR)
def test_autocast_computes_in_bfloat16_as_a_dense_layer_does(out_features, in_features, spec):
    layer = filled(out_features, in_features, spec).float()
    for tokens in (2, 100):
        x = torch.randn(tokens, in_features, generator=torch.Generator().manual_seed(1), requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16):
            y = layer(x)
        assert y.dtype == torch.bfloat16
        y.float().square().sum().backward()
        assert all(each.grad is not None and each.grad.isfinite().all() for each in (x, *layer.parameters()))
        exact = layer(x)
        assert (y - exact).abs().max() < 0.03 * exact.abs().max()
        layer.zero_grad()


@pytest.mark.parametrize(("out_features", "in_features", "spec"), LINEAR)
def test_a_layer_compiles_to_one_graph_and_copies_and_restores_exactly(out_features, in_features, spec):
    layer = filled(out_features, in_features, spec)
    x = torch.randn(5, in_features, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch._dynamo.reset()
    assert torch.equal(torch.compile(layer, backend="eager", fullgraph=True)(x), layer(x))
    fresh = layer_class(spec["type"]).from_spec(spec, out_features, in_features, bias=True).double()
    fresh.load_state_dict(layer.state_dict())
    for twin in (copy.deepcopy(layer), fresh):
        assert torch.equal(twin(x), layer(x))
    assert layer.state_dict().keys() == dict(layer.named_parameters()).keys() | dict(layer.named_buffers()).keys()


def test_permutations_are_index_lists_that_are_saved_and_not_counted():
    spec = {"type": "permuted_kronecker", "left": [6, 4], "splits": 3}
    layer = filled(36, 8, spec)
    held = {name: (each.dtype, len(each)) for name, each in layer.named_buffers()}
    assert held == {"rows": (torch.int32, 36), "columns": (torch.int32, 8)}
    assert count(spec, 36, 8) == count({**spec, "type": "kronecker"}, 36, 8) == 3 * (6 * 4 + 2 * 2)
    fitted = layer.materialise()[layer.rows][:, layer.columns]
    assert torch.equal(fitted, KroneckerLinear.materialise(layer))


def brute_force_macs(out_modes, in_modes, ranks):
    """The cheapest order of contraction: each step costs the product of all sizes that it touches."""
    length = len(out_modes)
    sizes = {("m", k): out_modes[k] for k in range(length)} | {("n", k): in_modes[k] for k in range(length)}
    sizes |= {("r", k): ranks[k] for k in range(1, length)}
    cores = [{("m", k), ("n", k)} | ({("r", k), ("r", k + 1)} & sizes.keys()) for k in range(length)]
    totals = []
    for order in permutations(range(length)):
        held, total = {("n", k) for k in range(length)}, 0
        for k in order:
            total += prod(sizes[index] for index in held | cores[k])
            held ^= cores[k]
        totals.append(total)
    return min(totals)


@pytest.mark.parametrize(
    ("out_modes", "in_modes", "ranks"),
    [
        ((8, 8, 12), (8, 8, 12), (1, 40, 60, 1)),
        ((24, 32, 1), (1, 32, 24), (1, 15, 19, 1)),
        ((1, 12, 1), (2, 2, 2), (1, 2, 2, 1)),
        ((3, 5, 2, 4), (4, 1, 6, 2), (1, 3, 7, 2, 1)),
    ],
)
def test_core_macs_is_the_cheapest_order(out_modes, in_modes, ranks):
    assert core_macs(out_modes, in_modes, ranks) == brute_force_macs(out_modes, in_modes, ranks)


@pytest.mark.parametrize(("rows", "columns"), [(768, 768), (3072, 768), (768, 3072), (2304, 768), (576, 1536)])
@pytest.mark.parametrize("cores", [2, 3])
@pytest.mark.parametrize("keep", [0.2, 0.5, 0.85])
def test_fast_modes_spend_the_entries_and_stay_below_the_dense_product(rows, columns, cores, keep):
    train = fast_modes(rows, columns, cores, int(keep * rows * columns))
    assert prod(train.out_modes) == rows
    assert prod(train.in_modes) == columns
    assert len(train.out_modes) == cores == len(train.ranks) - 1
    assert 0.93 * keep <= train.num_params / (rows * columns) <= keep
    assert train.macs_per_token <= train.num_params + 0.1 * rows * columns


def test_fast_modes_are_exact_at_full_rank_and_pad_what_has_no_factors():
    assert fast_modes(768, 3072, 3, 10**9) == ((24, 32, 1), (1, 64, 48), (1, 24, 48, 1))
    assert fast_modes(768, 768, 5, 10**9).ranks == (1, 8, 64, 64, 8, 1)
    assert fast_modes(1021, 48, 3, 20_000).out_modes == (31, 33, 1)
    assert fast_modes(64, 64, 3, 10) is None


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
