"""Which blocks are kept, what becomes of them, and how many meet a budget."""

from dataclasses import replace

import pytest
import torch
from transformers import GPT2Config

from methods import conformance, student, tiny
from methods.distilgpt2 import DistilGPT2
from methods.families import architecture
from methods.fields import decode, settle
from methods.interface import Budget, MethodError, Plan, Refusal
from methods.truncation import Truncation, every_second, first_and_last

GPT2_SIX_LAYERS = 81_912_576


def planned(method, config, value=None):
    plan = method.plan(config, None if value is None else Budget(value=value))
    assert isinstance(plan, Plan), plan
    return plan


@pytest.mark.parametrize(
    ("method", "kept"),
    [
        (DistilGPT2(), [0, 2, 4, 7, 9, 11]),
        (Truncation(), [0, 2, 4, 6, 8, 10]),
        (Truncation(keep="first_and_last"), [0, 1, 2, 9, 10, 11]),
        (Truncation(blocks=(0, 1, 2, 3, 4, 11)), [0, 1, 2, 3, 4, 11]),
    ],
)
def test_gpt2_small_with_six_layers(method, kept):
    plan = planned(method, GPT2Config(), 0.66)
    assert plan.details["kept"] == kept
    assert plan.size == GPT2_SIX_LAYERS == planned(method, GPT2Config(), GPT2_SIX_LAYERS).size
    with torch.device("meta"):
        assert student.count_params(student.build(GPT2Config(), {}, changes=plan.config_changes)) == GPT2_SIX_LAYERS


def test_the_preset_is_the_released_depth_without_a_budget():
    method = settle(DistilGPT2(preset="distilgpt2"))
    plan = planned(method, GPT2Config())
    assert plan.size == method.presets["distilgpt2"].counts["unique"]
    assert plan.details["kept"] == [0, 2, 4, 7, 9, 11]
    assert isinstance(method.plan(GPT2Config(), Budget(value=0.9)), Refusal)


@pytest.mark.parametrize("depth", [1, 2, 5, 12])
def test_rules_keep_the_right_number_in_order(depth):
    for layers in range(1, depth + 1):
        for rule in (every_second, first_and_last):
            kept = rule(depth, layers)
            assert len(kept) == layers
            assert kept == sorted(set(kept))
            assert kept[0] == 0
            assert kept[-1] < depth
        assert layers == 1 or first_and_last(depth, layers)[-1] == depth - 1
        assert layers == depth or every_second(depth, layers)[-1] < depth - 1
    assert first_and_last(12, 5) == [0, 1, 2, 10, 11]
    assert every_second(12, 9) == [0, 1, 2, 4, 5, 6, 8, 9, 10]


@pytest.mark.parametrize("label", ["gpt2", "llama-untied"])
def test_a_truncated_student_is_the_teacher_without_the_other_blocks(label):
    """The reference runs the teacher's own modules by hand: the list of its blocks, shortened."""
    teacher = tiny.teacher(label)
    method = Truncation(blocks=(0, 3))
    plan = planned(method, teacher.config, planned(replace(method), teacher.config).size)
    made = method.compress(teacher, plan, seed=0, statistics={})
    layers = teacher.transformer.h if label == "gpt2" else teacher.model.layers
    del layers[1:3]
    teacher.config.num_hidden_layers = 2
    for i, block in enumerate(layers):
        (block.attn if label == "gpt2" else block.self_attn).layer_idx = i
    with torch.no_grad():
        torch.testing.assert_close(made(tiny.tokens()).logits, teacher(tiny.tokens()).logits)


def test_block_influence_decides_in_refine_and_only_there():
    teacher = tiny.teacher("gpt2")
    blocks = architecture(teacher.config).blocks
    method = Truncation(keep="block_influence", kept_layers=2)
    plan = planned(method, teacher.config)
    assert method.needs == {"block_influence"}
    assert "kept" not in plan.details
    assert method.taps(teacher.config, plan) == []
    for influence, kept in (([0.1, 0.4, 0.2, 0.3], [1, 3]), ([0.2, 0.1, 0.2, 0.2], [0, 2])):
        values = torch.tensor(influence, dtype=torch.float64)
        statistics = {"block_influence": dict(zip(blocks, values, strict=True))}
        refined = method.refine(teacher, plan, statistics)
        assert refined == replace(plan, details={"kept": kept})
        made = method.compress(teacher, refined, seed=0, statistics=statistics)
        assert student.count_params(made) == plan.size
        for i, k in enumerate(kept):
            theirs = teacher.get_submodule(blocks[k]).state_dict()
            ours = made.get_submodule(blocks[i]).state_dict()
            assert all(torch.equal(ours[name], each) for name, each in theirs.items())
    assert Truncation().needs == frozenset() == Truncation(keep="block_influence", blocks=(0,)).needs


def test_taps_compare_a_block_with_the_end_of_its_run():
    config = GPT2Config()
    method = Truncation()
    taps = method.taps(config, planned(method, config, 0.66))
    assert [int(tap.teacher.rpartition(".")[2]) for tap in taps] == [1, 3, 5, 7, 9, 11]
    assert [int(tap.student.rpartition(".")[2]) for tap in taps] == list(range(6))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"blocks": [3, 1]}, r"blocks: \[3, 1\] is no ascending list; nearest: \[1, 3\]"),
        ({"blocks": []}, r"blocks: \[\] is no ascending list; nearest: \[0\]"),
        ({"blocks": [1, 3], "kept_layers": 3}, "blocks names 2"),
        ({"kept_layers": 0}, "kept_layers: 0 is too few; nearest: 1"),
        ({"keep": "every_third"}, "keep"),
    ],
)
def test_impossible_fields_are_refused_by_name(values, message):
    with pytest.raises(MethodError, match=message):
        decode("truncation", values)


def test_more_blocks_than_there_are_is_an_error_and_a_budget_between_depths_a_refusal():
    config = tiny.config("gpt2")
    for method in (Truncation(kept_layers=5), DistilGPT2(kept_layers=5), Truncation(blocks=(0, 4))):
        with pytest.raises(MethodError, match=r"nearest: 4|from 0 to 3"):
            method.plan(config, None)
    refusal = Truncation().plan(config, Budget(value=0.85))
    assert isinstance(refusal, Refusal)
    assert planned(Truncation(), config, refusal.nearest).size == round(
        refusal.nearest * architecture(config).num_params
    )


@pytest.mark.parametrize("keep", ["first_and_last", "block_influence"])
def test_truncation_conforms(keep):
    findings = conformance.check_method(Truncation(keep=keep), fast=True)
    assert [each for each in findings if each.status == "failed"] == []


def test_truncations_recipe_needs_no_teacher():
    assert not Truncation().recipe().losses.needs_teacher
