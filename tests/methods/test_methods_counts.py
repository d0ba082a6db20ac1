"""Sizes on the real configurations, against arithmetic published or done by hand."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from methods import registry, student
from methods.distilgpt2 import DistilGPT2, kept_layers
from methods.families import architecture
from methods.interface import Budget, MethodError, Plan, Refusal
from methods.kronecker import Kronecker
from methods.svd import Svd

SPECIAL = {"bos_token_id": 0, "eos_token_id": 0}
DEMO = {"vocab_size": 4096, "n_positions": 256, "n_embd": 128, "n_layer": 6, "n_head": 4, **SPECIAL}
COMPRESSORS = {name: method for name in registry.names() if (method := registry.load(name)()).budgeted}


def smollm2():
    return LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
        **SPECIAL,
    )


def built_size(config, plan):
    with torch.device("meta"):
        return student.count_params(student.build(config, plan.surgery, changes=plan.config_changes))


def planned(method, config, value):
    plan = method.plan(config, Budget(value=value))
    assert isinstance(plan, Plan), plan
    return plan


def test_gpt2_small_has_the_published_count():
    assert architecture(GPT2Config()).num_params == 124_439_808
    assert architecture(GPT2Config(tie_word_embeddings=False)).num_params == 163_037_184


@pytest.mark.parametrize(
    "config",
    [
        GPT2Config(**DEMO, n_inner=96),
        GPT2Config(**DEMO, tie_word_embeddings=False),
        smollm2(),
        LlamaConfig(
            vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            attention_bias=True, mlp_bias=True, head_dim=16, **SPECIAL,
        ),
    ],
)  # fmt: skip
def test_architecture_equals_the_stock_model(config):
    dense = architecture(config)
    with torch.device("meta"):
        model = (GPT2LMHeadModel if dense.family == "gpt2" else LlamaForCausalLM)(config)
    assert dense.num_params == sum(each.numel() for each in model.parameters())
    for each in dense.matrices:
        module = model.get_submodule(each.path)
        stored = tuple(module.weight.shape)
        assert stored == (each.out_features, each.in_features)[:: -1 if dense.family == "gpt2" else 1]
        assert (module.bias is not None) == each.bias
    for path in (*dense.blocks, *dense.attentions, dense.embedding, dense.final_norm, dense.head):
        model.get_submodule(path)


def test_another_family_is_refused_by_name():
    from transformers import BertConfig

    with pytest.raises(MethodError, match=r"'bert' is not supported; known: gpt2, llama"):
        architecture(BertConfig())


def test_distilgpt2_is_distilgpt2():
    plan = planned(DistilGPT2(), GPT2Config(), 0.66)
    assert plan.size == 81_912_576 == built_size(GPT2Config(), plan)
    assert plan.details["kept"] == [0, 2, 4, 7, 9, 11]
    assert kept_layers(12, 12) == list(range(12))


@pytest.mark.parametrize(
    ("keep", "everything", "ffn"),
    [
        (0.8, 107_371_776, 113_067_264),
        (0.7, 98_929_920, 107_445_504),
        (0.6, 90_377_472, 101_731_584),
        (0.5, 81_954_048, 96_109_824),
        (0.4, 73_383_168, 90_395_904),
        (0.3, 64_922_880, 84_774_144),
    ],
)
def test_svd_meets_the_computed_table_exactly(keep, everything, ffn):
    for method, size in ((Svd(), everything), (Svd(matrices="ffn"), ffn)):
        plan = planned(method, GPT2Config(), size)
        ranks = {path.partition(".")[2].split(".", 2)[2]: spec["rank"] for path, spec in plan.surgery.items()}
        assert plan.size == size
        assert ranks["mlp.c_fc"] == ranks["mlp.c_proj"] == int(keep * 768 * 3072 / (768 + 3072))


@pytest.mark.parametrize(
    ("method", "size"), [(Kronecker(), 83_907_530), (Kronecker(attention_output=False), 85_676_990)]
)
def test_kronecker_takes_the_papers_layout_at_its_size(method, size):
    plan = planned(method, GPT2Config(), size)
    assert plan.size == size == built_size(GPT2Config(), plan)
    assert {path.split(".")[2] for path in plan.surgery if ".h." in path} == {"1", "3", "5", "7", "9", "11"}
    assert plan.surgery["transformer.wte"] == {"type": "kronecker.embedding", "factors": [2]}


ONLY_THE_EMBEDDING = {("embedding_svd", 0.66), ("tensor_gpt", 0.66)}
DEMO_REFUSES = {("distilgpt2", 0.8), ("truncation", 0.8), *ONLY_THE_EMBEDDING}
SMOLLM2_REFUSES: set[tuple[str, float]] = set()


@pytest.mark.parametrize("name", COMPRESSORS)
@pytest.mark.parametrize("value", [0.66, 0.8, 0.9, 1.0])
def test_real_sizes_are_met_and_predicted(name, value):
    cases = [(GPT2Config(**DEMO), DEMO_REFUSES)]
    if value in (0.8, 0.9):
        cases.append((smollm2(), SMOLLM2_REFUSES))
    for config, refused in cases:
        budget, whole = Budget(value=value), architecture(config).num_params
        plan = COMPRESSORS[name].plan(config, budget)
        if (name, value) in refused:
            assert isinstance(plan, Refusal)
            continue
        assert isinstance(plan, Plan), plan
        assert abs(plan.size - value * whole) <= 0.02 * value * whole
        assert plan.size == built_size(config, plan)


@pytest.mark.parametrize("name", COMPRESSORS)
def test_an_impossible_budget_is_refused_with_a_nearest_that_is_met(name):
    config = GPT2Config(**DEMO)
    for value in (0.05, 2.0 * architecture(config).num_params):
        refusal = COMPRESSORS[name].plan(config, Budget(value=value))
        assert isinstance(refusal, Refusal)
        assert refusal.nearest is not None
        planned(COMPRESSORS[name], config, refusal.nearest)


def test_layers_restrict_the_blocks():
    config = GPT2Config(**DEMO)
    svd = planned(Svd(layers="even"), config, 0.9)
    kronecker = planned(Kronecker(layers="odd", embedding=False), config, 0.9)
    assert {path.split(".")[2] for path in svd.surgery} == {"0", "2", "4"}
    assert {path.split(".")[2] for path in kronecker.surgery} <= {"1", "3", "5"}
