"""Student directories: exact, safe, and readable by plain transformers once materialised."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, GPT2LMHeadModel

from methods import student, tiny
from methods.interface import Budget, MethodError, Plan, Refusal
from methods.kronecker import Kronecker
from methods.layers.tied_head import TiedHead
from methods.svd import Svd


def compressed(label, method=None, value=0.7):
    teacher = tiny.teacher(label)
    method = method or Kronecker(embedding=True)
    plan = method.plan(teacher.config, Budget(value=value))
    if isinstance(plan, Refusal):
        plan = method.plan(teacher.config, Budget(value=plan.nearest))
    return method.compress(teacher, plan, seed=0, statistics={})


@torch.no_grad()
def logits(model):
    return model(tiny.tokens()).logits


@pytest.fixture
def saved(tmp_path):
    model = compressed("gpt2")
    student.save(model, tmp_path)
    return model, tmp_path


@pytest.mark.parametrize("label", tiny.TEACHERS)
def test_round_trip_is_bit_equal_and_stable(label, tmp_path):
    model = compressed(label)
    student.save(model, tmp_path / "a")
    loaded = student.load(tmp_path / "a")
    assert torch.equal(logits(loaded), logits(model))
    student.save(loaded, tmp_path / "b")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_tied_factorised_embedding_is_stored_and_counted_once(saved):
    model, directory = saved
    keys = load_file(directory / "model.safetensors").keys()
    assert isinstance(model.lm_head, TiedHead)
    assert not [key for key in keys if key.startswith("lm_head")]
    assert student.count_params(model) == sum(
        each.numel() for each in load_file(directory / "model.safetensors").values()
    )
    twin = copy.deepcopy(student.load(directory))
    assert twin.lm_head.emb is twin.get_input_embeddings()
    twin.tie_weights()
    assert torch.equal(logits(twin), logits(model))


def test_plain_transformers_refuses_a_student(saved):
    with pytest.raises(ValueError, match="weighin_gpt2"):
        AutoConfig.from_pretrained(saved[1])


@pytest.mark.parametrize("label", tiny.TEACHERS)
def test_plain_transformers_loads_the_dense_equivalent(label, tmp_path):
    model = compressed(label)
    student.save(student.materialise(model), tmp_path)
    stock, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    torch.testing.assert_close(logits(stock), logits(model), rtol=1e-4, atol=1e-4)


def test_a_directory_written_by_plain_transformers_loads(tmp_path):
    teacher = tiny.teacher("gpt2")
    stock = GPT2LMHeadModel(tiny.config("gpt2")).eval()
    stock.load_state_dict(teacher.state_dict())
    stock.save_pretrained(tmp_path)
    assert torch.equal(logits(student.load(tmp_path)), logits(stock))


def test_the_hub_form_of_gpt2_loads(tmp_path):
    """Names without their base, attention buffers, and a second copy of the tied matrix."""
    teacher = tiny.teacher("gpt2")
    student.save(teacher, tmp_path)
    held = {name.removeprefix("transformer."): each for name, each in teacher.named_parameters()}
    held |= {"h.0.attn.bias": torch.ones(1, 1, 4, 4), "lm_head.weight": held["wte.weight"].clone()}
    save_file(held, tmp_path / "model.safetensors")
    assert torch.equal(logits(student.load(tmp_path)), logits(teacher))
    save_file(held | {"lm_head.weight": held["wte.weight"] + 1}, tmp_path / "model.safetensors")
    with pytest.raises(MethodError, match=r"unexpected 'lm_head.weight'"):
        student.load(tmp_path)


@pytest.mark.parametrize("label", ["gpt2", "llama-untied"])
def test_a_classifier_gets_the_same_layers_and_a_fresh_head(label, tmp_path):
    model = compressed(label)
    student.save(model, tmp_path / "lm")
    scores = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        classifier = student.load(tmp_path / "lm", head="classification", num_labels=3)
        scores.append(classifier.score.weight)
    assert torch.equal(scores[0], scores[1])
    assert not torch.equal(scores[0], scores[2])
    assert scores[0].shape == (3, 48)
    base = classifier.base_model_prefix
    for path in model.config.surgery:
        assert type(classifier.get_submodule(path)) is type(model.get_submodule(path)), base
    classifier.config.pad_token_id = 0
    student.save(classifier, tmp_path / "classifier")
    again = student.load(tmp_path / "classifier", head="classification")
    assert torch.equal(logits(again), logits(classifier))
    with pytest.raises(MethodError, match="score"):
        student.load(tmp_path / "classifier")


def test_missing_unexpected_and_misshapen_keys_are_refused(saved):
    directory = saved[1]
    held = load_file(directory / "model.safetensors")
    name = "transformer.h.1.attn.c_attn.left"

    def refusal(tensors):
        save_file(tensors, directory / "model.safetensors")
        with pytest.raises(MethodError) as error:
            student.load(directory)
        return str(error.value)

    assert f"lacks {name!r}" in refusal({key: each for key, each in held.items() if key != name})
    assert "unexpected 'transformer.extra'" in refusal(held | {"transformer.extra": torch.zeros(1)})
    assert f"{name!r} has shape [2]" in refusal(held | {name: torch.zeros(2)})


def test_unreadable_directories_are_refused_in_one_line(saved):
    directory = saved[1]
    fields = json.loads((directory / "config.json").read_text())

    def refusal():
        with pytest.raises(MethodError) as error:
            student.load(directory)
        assert "\n" not in str(error.value)
        return str(error.value)

    (directory / "config.json").write_text(json.dumps(fields | {"model_type": "gpt2"}))
    assert "disagree" in refusal()
    bad = {"transformer.nowhere": {"type": "low_rank", "rank": 1}}
    (directory / "config.json").write_text(json.dumps(fields | {"surgery": bad}))
    assert "transformer.nowhere" in refusal()
    (directory / "config.json").write_text(json.dumps(fields))
    (directory / "model.safetensors").write_bytes(b"garbage")
    assert "cannot be read" in refusal()
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    assert "no model.safetensors" in refusal()
    (directory / "config.json").unlink()
    assert "config.json is missing" in refusal()


def test_a_later_phase_copies_the_layers_that_stay_and_compresses_what_the_others_stand_for():
    model = compressed("llama", Svd())
    plan = Svd().plan(model.config, Budget(value=0.6))
    kept = next(iter(plan.surgery))
    surgery = {path: model.config.surgery[path] if path == kept else spec for path, spec in plan.surgery.items()}
    again = Svd().compress(model, Plan(size=0, surgery=surgery), seed=0, statistics={})
    assert torch.equal(again.get_submodule(kept).left, model.get_submodule(kept).left)
    for path in list(surgery)[1:]:
        before, after = (each.get_submodule(path).materialise().detach() for each in (model, again))
        values = torch.linalg.svdvals(before.double())
        lost = values[surgery[path]["rank"] :].square().sum().sqrt()
        assert torch.linalg.matrix_norm((after - before).double()) == pytest.approx(float(lost), rel=1e-3, abs=1e-5)


def test_special_tokens_outside_the_vocabulary_are_dropped():
    config = tiny.config("gpt2")
    config.eos_token_id = 50256
    with torch.device("meta"):
        model = student.build(config, {})
    assert model.config.eos_token_id is None
    assert model.config.bos_token_id == 0


@pytest.mark.parametrize("label", ["gpt2", "llama"])
def test_precision_is_of_parameters_not_of_rotary_frequencies(label, tmp_path):
    student.save(tiny.teacher(label), tmp_path)
    loaded = student.load(tmp_path, dtype=torch.bfloat16)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {each.dtype for each in loaded.parameters()} == {torch.bfloat16}
    assert {each.dtype for each in loaded.buffers()} <= {torch.float32}
    assert torch.equal(logits(loaded), logits(stock))


def test_loading_leaves_the_random_generator_alone(saved):
    before = torch.get_rng_state()
    student.load(saved[1])
    assert torch.equal(before, torch.get_rng_state())
