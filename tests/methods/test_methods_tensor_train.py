"""Tensor trains: the paper's sizes, given modes and ranks, padding, and training from scratch."""

from itertools import pairwise
from math import prod

import numpy as np
import pytest
import torch
from transformers import GPT2Config, LlamaConfig

from methods import student, tiny
from methods.conformance import assert_conforms
from methods.families import architecture
from methods.fields import changed_fields, decode, settle
from methods.interface import Budget, MethodError, Plan, Refusal
from methods.layers.tensor_train import TensorTrainLinear
from methods.tensor_train import TensorTrain, _fast_trains, random_cores

UP = {"up": {"out": (8, 5, 5), "in": (4, 3, 4)}}
"""192 x 48 padded to 200 x 48."""


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def compressed(method, label="gpt2", budget=None, seed=0):
    teacher = tiny.teacher(label)
    plan = method.plan(teacher.config, budget)
    assert isinstance(plan, Plan), plan
    return teacher, plan, method.compress(teacher, plan, seed=seed, statistics={})


@pytest.mark.parametrize(("rank", "size"), [(80, 107_698_944), (64, 93_431_040), (32, 74_332_416), (16, 69_501_696)])
def test_the_papers_gpt2_small(rank, size):
    method = settle(decode("tensor_train", {"preset": "ttm-80"} | ({} if rank == 80 else {"rank": rank})))
    plan = method.plan(GPT2Config(), None)
    assert plan.size == size == 67_816_704 + 24 * (36 * rank + 256 * rank**2 + 256 * rank)
    assert len(plan.surgery) == 24
    with torch.device("meta"):
        assert student.count_params(student.build(GPT2Config(), plan.surgery)) == size
    assert (method.stochastic, method.exact_at_full) == (True, False)
    assert method.taps(GPT2Config(), plan) == ()


def test_a_preset_of_another_size_is_refused_by_name():
    method = settle(TensorTrain(preset="ttm-80"))
    with pytest.raises(MethodError, match=r"up.out: \[12, 16, 16\] multiply to 3072, less than the dimension 4096"):
        method.plan(GPT2Config(n_embd=1024, n_head=16), None)


def test_modes_and_rank_are_taken_as_given_and_others_chosen():
    _, plan, _ = compressed(TensorTrain(modes=UP, rank=6))
    up, down = plan.surgery["transformer.h.1.mlp.c_fc"], plan.surgery["transformer.h.1.mlp.c_proj"]
    assert (up["out_modes"], up["in_modes"], up["ranks"]) == ([8, 5, 5], [4, 3, 4], [1, 6, 6, 1])
    chosen = _fast_trains(48, 192, 3)[0]
    assert (down["out_modes"], down["in_modes"]) == (list(chosen.out_modes), list(chosen.in_modes))
    assert down["ranks"] == [1, 6, 6, 1]


def test_ranks_stop_where_the_modes_do_unless_drawn():
    assert compressed(TensorTrain(modes=UP, rank=30))[1].surgery["transformer.h.0.mlp.c_fc"]["ranks"] == [1, 30, 20, 1]
    drawn = TensorTrain(modes=UP, rank=30, initialisation="random")
    assert compressed(drawn)[1].surgery["transformer.h.0.mlp.c_fc"]["ranks"] == [1, 30, 30, 1]


@pytest.mark.parametrize("modes", [None, UP])
@pytest.mark.parametrize("initialisation", ["svd", "random"])
def test_budgets_are_met(modes, initialisation):
    method = TensorTrain(modes=modes, initialisation=initialisation)
    whole = architecture(tiny.config("gpt2")).num_params
    for percent in (30, 50, 70, 85, 95):
        budget = Budget(value=percent / 100)
        _, plan, made = compressed(method, budget=budget)
        assert budget.met_by(plan.size, whole)
        assert student.count_params(made) == plan.size


def test_a_given_rank_refuses_other_budgets_with_its_own_size():
    refusal = TensorTrain(rank=2, matrices="ffn").plan(GPT2Config(), Budget(value=0.9))
    assert isinstance(refusal, Refusal)
    assert "24 matrices are in scope, at rank 2" in refusal.reason
    fixed = TensorTrain(rank=2, matrices="ffn").plan(GPT2Config(), None)
    assert refusal.nearest == fixed.size / 124_439_808


@pytest.mark.parametrize("cores", [2, 3, 4])
def test_chosen_trains_grow_in_small_steps_up_to_the_dense_size(cores):
    trains = _fast_trains(768, 3072, cores)
    kept = [each.num_params / (768 * 3072) for each in trains]
    assert all(len(each.out_modes) == cores for each in trains)
    assert kept[0] < 0.02
    assert 0.97 < kept[-1] < 1
    assert all(0 < after - before < 0.03 for before, after in pairwise(kept))


def test_every_kept_fraction_is_the_same():
    plan = TensorTrain().plan(GPT2Config(), Budget(value=0.6))
    shapes = {each.path: each for each in architecture(GPT2Config()).matrices}
    assert plan.surgery.keys() == shapes.keys()
    kept = [TensorTrainLinear.count(s, 0, 0) / shapes[path].size for path, s in plan.surgery.items()]
    assert max(kept) - min(kept) < 0.03
    assert plan.size == pytest.approx(0.6 * 124_439_808, rel=1e-3)


def test_full_ranks_reproduce_a_padded_matrix():
    teacher, _, made = compressed(TensorTrain(modes=UP, rank=1000, matrices="ffn"))
    path = "transformer.h.2.mlp.c_fc"
    torch.testing.assert_close(made.get_submodule(path).materialise(), teacher.get_submodule(path).weight.T)


def test_two_cores_are_the_truncated_svd_of_the_padded_rearrangement():
    method = TensorTrain(modes={"up": {"out": (14, 14), "in": (10, 5)}}, rank=7, matrices="ffn")
    teacher, _, made = compressed(method)
    path = "transformer.h.0.mlp.c_fc"
    weight = teacher.get_submodule(path).weight.T.detach().double().numpy()
    padded = np.zeros((196, 50))
    padded[:192, :48] = weight
    u, s, vt = np.linalg.svd(padded.reshape(14, 14, 10, 5).transpose(0, 2, 1, 3).reshape(140, 70))
    nearest = (u[:, :7] * s[:7]) @ vt[:7]
    wanted = nearest.reshape(14, 10, 14, 5).transpose(0, 2, 1, 3).reshape(196, 50)[:192, :48]
    found = made.get_submodule(path).materialise().detach().double()
    torch.testing.assert_close(found, torch.from_numpy(wanted), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("out_modes", "in_modes", "ranks"),
    [
        ((6, 8, 7), (5, 6, 8), (1, 9, 11, 1)),
        ((16, 20, 1), (1, 18, 14), (1, 10, 7, 1)),
        ((20, 20), (18, 18), (1, 30, 1)),
    ],
)
def test_random_cores_have_the_weights_variance(out_modes, in_modes, ranks):
    """The mean square of an entry over draws; entries have mean 0."""
    spec = {"out_modes": out_modes, "in_modes": in_modes, "ranks": ranks}
    layer = TensorTrainLinear(prod(out_modes), prod(in_modes), out_modes, in_modes, ranks, bias=False)
    squares, means, draws = 0.0, 0.0, 24
    for seed in range(draws):
        values = random_cores(spec, 0.02, torch.Generator().manual_seed(seed))
        with torch.no_grad():
            for name, core in values.items():
                getattr(layer, name).copy_(core)
            squares += float(layer.materialise().square().mean()) / draws
            means += float(layer.materialise().mean()) / draws
    assert squares**0.5 == pytest.approx(0.02, rel=0.02)
    assert abs(means) < 1e-4


@pytest.mark.parametrize("label", tiny.TEACHERS)
def test_from_scratch_nothing_of_the_teacher_is_left(label):
    method = TensorTrain(initialisation="random", matrices="ffn")
    teacher, _, made = compressed(method, label, Budget(value=0.8))
    old = teacher.state_dict()
    std = teacher.config.initializer_range
    for name, each in made.named_parameters():
        parameter = each.detach()
        assert name not in old or not torch.equal(parameter, old[name])
        if name.endswith("bias"):
            assert not parameter.any()
        elif parameter.dim() == 1:
            assert torch.equal(parameter, torch.ones_like(parameter))
        elif "core" not in name:
            assert float(parameter.square().mean().sqrt()) == pytest.approx(std, rel=0.1)
            assert abs(float(parameter.mean())) < std / 10
    tied = made.lm_head.weight is made.get_input_embeddings().weight
    assert tied == teacher.config.tie_word_embeddings


def test_the_seed_decides_the_draw():
    method, budget = TensorTrain(initialisation="random"), Budget(value=0.7)
    first, again, other = (dict(compressed(method, "llama", budget, s)[2].named_parameters()) for s in (0, 0, 1))
    for name, parameter in first.items():
        assert torch.equal(parameter, again[name])
        assert parameter.dim() == 1 or not torch.equal(parameter, other[name])


def test_a_full_budget_from_scratch_is_a_fresh_dense_model():
    teacher, plan, made = compressed(TensorTrain(initialisation="random"), budget=Budget(value=1.0))
    assert plan.surgery == {}
    name = "transformer.h.0.mlp.c_fc.weight"
    assert not torch.equal(made.get_parameter(name), teacher.get_parameter(name))


def test_what_is_declared_follows_the_fields():
    assert (TensorTrain().stochastic, TensorTrain().exact_at_full) == (False, True)
    assert (TensorTrain(rank=3).stochastic, TensorTrain(rank=3).exact_at_full) == (False, False)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rank": 0}, "rank must be at least 1, not 0"),
        ({"modes": {"up": {"out": [2, 2]}}}, r"modes: up needs `out` and `in`, not \['out'\]"),
        ({"modes": {"up": {"out": [2, 2], "in": [2, 2, 2]}}}, "as many numbers in `out` as in `in`"),
        ({"modes": {"up": {"out": [2], "in": [2]}}}, "at least 2"),
        ({"modes": {"up": {"out": [2, 0], "in": [2, 2]}}}, "up has a mode below 1"),
        ({"modes": {"upp": {"out": [2, 2], "in": [2, 2]}}}, "modes.upp: Input should be 'qkv'"),
        ({"initialisation": "zeros"}, "initialisation: Input should be 'svd' or 'random'"),
    ],
)
def test_bad_fields_are_refused(fields, message):
    with pytest.raises(MethodError, match=message):
        decode("tensor_train", fields)


def test_modes_survive_the_way_through_json():
    fields = {"modes": {"up": {"out": [8, 5, 5], "in": [4, 3, 4]}}}
    assert changed_fields(decode("tensor_train", fields)) == fields


def test_llama_takes_modes_by_role():
    config = LlamaConfig(hidden_size=48, intermediate_size=144, num_hidden_layers=1, num_attention_heads=4)
    modes = {role: {"out": (12, 12), "in": (6, 8)} for role in ("gate", "up")}
    plan = TensorTrain(modes=modes, rank=2, matrices="ffn").plan(config, None)
    assert [spec["out_modes"] for spec in plan.surgery.values()][:2] == [[12, 12], [12, 12]]
    assert len(plan.surgery["model.layers.0.mlp.down_proj"]["out_modes"]) == 3


@pytest.mark.parametrize("method", [TensorTrain(modes=UP), TensorTrain(initialisation="random")])
def test_given_modes_and_random_cores_conform(method):
    assert_conforms(method, teachers=["gpt2"])
