"""TQCompressor by hand: the released counts, its phases, and what the permutations buy at equal size."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from transformers import GPT2Config

from methods import student, tiny
from methods.families import architecture, weight_OI
from methods.fields import settle
from methods.interface import Budget, MethodError, Plan, Refusal
from methods.kronecker import Kronecker
from methods.kronecker_factors import matrix_factors
from methods.permuted_factors import permuted_factors
from methods.planning import counted
from methods.tq import TQCompressor


def built_size(config, plan):
    with torch.device("meta"):
        return student.count_params(student.build(config, plan.surgery, changes=plan.config_changes))


def decaying(rows, columns, seed):
    """Singular values 1 / (1 + i), with rows and columns in a random order."""
    generator = np.random.default_rng(seed)
    u, _, vt = np.linalg.svd(generator.standard_normal((rows, columns)), full_matrices=False)
    return torch.from_numpy(u / (1 + np.arange(len(vt))) @ vt)


def dense(factors):
    """The stack of splits that permuted factors stand for: K with its rows and columns put back, by numpy."""
    splits = zip(factors["left"].numpy(), factors["right"].numpy(), strict=True)
    stack = np.concatenate([sum(np.kron(a, b) for a, b in zip(*each, strict=True)) for each in splits])
    whole = np.empty_like(stack)
    whole[np.ix_(factors["rows"].numpy(), factors["columns"].numpy())] = stack
    return whole


def error(weight, matrix):
    return float(np.linalg.norm(weight.double().numpy() - matrix))


def test_the_released_configuration_has_its_published_counts():
    config, preset = GPT2Config(), TQCompressor.presets["tq-81m"]
    method = settle(TQCompressor(preset="tq-81m"))
    plan = method.plan(config, None)
    for rule, published in preset.counts.items():
        assert counted(architecture(config), plan, rule) == published
    assert plan.size == built_size(config, plan)
    assert {path.split(".", 2)[2].partition(".")[2] for path in plan.surgery if ".h." in path} == {
        "mlp.c_fc",
        "mlp.c_proj",
    }
    assert {path.split(".")[2] for path in plan.surgery if ".h." in path} == {"1", "3", "5", "7", "9", "11"}
    assert isinstance(method.plan(config, Budget(value=0.5)), Refusal)


def test_the_released_shapes_are_the_configs_when_stored_in_by_out():
    """(m1, n1, m2, n2) of W^T: (384, 768, 2, 4) for c_fc and (768, 384, 4, 2) for c_proj."""
    config = GPT2Config()
    plan = settle(TQCompressor(preset="tq-81m")).plan(config, None)
    with torch.device("meta"):
        model = student.build(config, plan.surgery, changes=plan.config_changes)
    for name, shape in (("c_fc", (384, 768, 2, 4)), ("c_proj", (768, 384, 4, 2))):
        layer = model.get_submodule(f"transformer.h.1.mlp.{name}")
        assert layer.left.mT.shape[1:] == (4, *shape[:2])
        assert layer.right.mT.shape[1:] == (4, *shape[2:])


def test_phases_split_the_embedding_then_the_matrices_then_the_embedding_again():
    config = GPT2Config()
    method = settle(TQCompressor(preset="tq-81m"))
    plan = method.plan(config, None)
    phases = method.phases(config, plan)
    embedding = "transformer.wte"
    assert [each.plan.surgery[embedding]["factors"] for each in phases] == [[2], [2], [2, 2]]
    assert [len(each.plan.surgery) for each in phases] == [1, 13, 13]
    assert [each.share for each in phases] == [pytest.approx(1 / 3)] * 3
    assert phases[-1].plan == plan
    for each in phases:
        assert each.plan.size == built_size(config, each.plan)
        assert each.plan.config_changes == {"tie_word_embeddings": False}


@pytest.mark.parametrize("label", tiny.TEACHERS)
@pytest.mark.parametrize("value", [0.45, 0.66, 0.8, 0.95, 1.0])
def test_phases_nest_and_end_at_the_plan_for_any_budget(label, value):
    config = tiny.config(label)
    method = TQCompressor()
    plan = method.plan(config, Budget(value=value))
    assert isinstance(plan, Plan), plan
    phases = method.phases(config, plan)
    assert phases[-1].plan == plan
    assert sum(each.share for each in phases) == pytest.approx(1)
    held = [set(each.plan.surgery) for each in phases]
    assert all(before <= after for before, after in pairwise(held))
    sizes = [each.plan.size for each in phases]
    assert sizes == sorted(set(sizes), reverse=True)
    assert sizes == [built_size(config, each.plan) for each in phases]


def test_a_plan_without_an_embedding_or_without_matrices_has_fewer_phases():
    config = tiny.config("gpt2")
    without = TQCompressor(embedding=False)
    assert len(without.phases(config, without.plan(config, Budget(value=0.8)))) == 1
    assert len(without.phases(config, without.plan(config, Budget(value=1.0)))) == 1
    alone = TQCompressor(layers=())
    plan = replace(without.plan(config, Budget(value=1.0)), surgery={})
    assert alone.phases(config, plan)[0].plan == plan


def test_training_phase_by_phase_leads_where_one_compression_leads():
    """Without training in between: matrices are copied, and the embedding's first split is found again."""
    teacher = tiny.teacher("gpt2")
    shapes = {"up": (48, 24), "down": (24, 48)}
    method = TQCompressor(shapes=shapes, layers="odd", head="untied")
    plan = method.plan(teacher.config, None)
    at_once = method.compress(teacher, plan, seed=0, statistics={})
    model = teacher
    for phase in method.phases(teacher.config, plan):
        model = method.compress(model, phase.plan, seed=0, statistics={})
    for (name, ours), theirs in zip(model.state_dict().items(), at_once.state_dict().values(), strict=True):
        if "mlp" in name or name == "lm_head.weight":
            assert torch.equal(ours, theirs), name
    torch.testing.assert_close(model.transformer.wte.materialise(), at_once.transformer.wte.materialise())
    assert student.count_params(model) == plan.size


@pytest.mark.parametrize(("left", "terms"), [((12, 48), 1), ((6, 24), 4), ((24, 16), 2), ((3, 48), 4)])
def test_permutations_lower_the_error_at_equal_size(left, terms):
    for seed in range(3):
        weight = decaying(24, 48, seed)
        spec = {"left": left, "splits": 1, "terms": terms}
        permuted, plain = permuted_factors(weight, spec), matrix_factors(weight, spec)
        assert sorted(permuted["rows"].tolist()) == list(range(24))
        assert sorted(permuted["columns"].tolist()) == list(range(48))
        sizes = [sum(each[name].numel() for name in ("left", "right")) for each in (permuted, plain)]
        assert sizes[0] == sizes[1]
        identity = {**plain, "rows": torch.arange(24), "columns": torch.arange(48)}
        assert error(weight, dense(permuted)) < error(weight, dense(identity)) * (1 - 1e-3)


@pytest.mark.parametrize("left", [(4, 12), (8, 6), (4, 6)])
def test_splits_are_permuted_within_and_share_the_columns(left):
    weight = decaying(24, 12, 0)
    spec = {"left": left, "splits": 3, "terms": 1}
    permuted, plain = permuted_factors(weight, spec), matrix_factors(weight, spec)
    for s, rows in enumerate(permuted["rows"].chunk(3)):
        assert sorted(rows.tolist()) == list(range(8 * s, 8 * (s + 1)))
    identity = {**plain, "rows": torch.arange(24), "columns": torch.arange(12)}
    assert error(weight, dense(permuted)) <= error(weight, dense(identity))


def test_an_order_that_does_not_help_is_left_alone():
    weight = torch.kron(decaying(6, 4, 0), decaying(4, 3, 1))
    factors = permuted_factors(weight, {"left": (6, 4), "splits": 1, "terms": 1})
    assert torch.equal(factors["rows"], torch.arange(24, dtype=torch.int32))
    assert error(weight, dense(factors)) < 1e-6


def test_a_students_layers_are_nearer_to_the_teacher_than_kroneckers_at_equal_size():
    teacher = tiny.teacher("llama")
    fields = {"matrices": "ffn", "embedding": False, "terms": 1}
    errors = []
    for method in (TQCompressor(**fields), Kronecker(**fields)):
        plan = method.plan(teacher.config, Budget(value=0.8))
        made = student.materialise(method.compress(teacher, plan, seed=0, statistics={}))
        pairs = [(teacher.get_submodule(path), made.get_submodule(path)) for path in plan.surgery]
        squares = [error(weight_OI(a).detach(), weight_OI(b).detach().double().numpy()) ** 2 for a, b in pairs]
        errors.append((plan.size, sum(squares)))
    assert errors[0][0] == errors[1][0]
    assert errors[0][1] < errors[1][1]


def test_the_recipe_takes_the_known_share_of_openwebtext_and_no_taps():
    method = TQCompressor(preset="tq-81m")
    recipe = method.recipe()
    assert recipe.tokens == pytest.approx(0.031 * 9e9)
    assert recipe.losses.kd > 0
    assert recipe.losses.taps == 0
    assert not method.taps(GPT2Config(), Plan(size=1))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"terms": 0}, "terms: 0 is no number of products"),
        ({"rounds": 0}, "rounds: 0 finds no permutation; nearest: 1"),
        ({"head": "untied", "embedding": False}, "head: untied needs a factorised embedding"),
        ({"shapes": {"qkv": (4, 4)}}, "shapes: 'qkv' is outside matrices: ffn; nearest: matrices: all"),
    ],
)
def test_fields_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(MethodError, match=message):
        TQCompressor(**fields)
