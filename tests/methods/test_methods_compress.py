"""What each method does to a teacher's weights, tensor by tensor."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from methods import registry, student, tiny
from methods.distilgpt2 import DistilGPT2
from methods.families import weight_OI
from methods.identity import Identity
from methods.interface import Budget, MethodError, Plan, Refusal
from methods.kronecker import Kronecker
from methods.recipe import Recipe
from methods.svd import Svd


def run(method, label, value):
    teacher = tiny.teacher(label)
    plan = method.plan(teacher.config, Budget(value=value))
    assert isinstance(plan, Plan), plan
    return teacher, plan, method.compress(teacher, plan, seed=0, statistics={})


@pytest.mark.parametrize("label", ["gpt2", "llama"])
def test_distilgpt2_takes_the_first_the_middle_and_the_last_layer(label):
    teacher, plan, made = run(DistilGPT2(), label, 0.76)
    assert plan.details["kept"] == [0, 2, 3]
    ours, theirs = dict(made.named_parameters()), dict(teacher.named_parameters())
    prefix = "transformer.h" if label == "gpt2" else "model.layers"
    for i, kept in enumerate(plan.details["kept"]):
        for name in (each for each in theirs if each.startswith(f"{prefix}.{kept}.")):
            assert torch.equal(ours[name.replace(f"{prefix}.{kept}.", f"{prefix}.{i}.")], theirs[name])


def test_distilgpt2_measures_a_published_checkpoint_by_its_own_size(tmp_path):
    _, _, small = run(DistilGPT2(), "llama", 0.76)
    student.save(small, tmp_path)
    method = DistilGPT2(checkpoint=str(tmp_path))
    refusal = method.plan(tiny.config("llama"), Budget(value=0.5))
    assert isinstance(refusal, Refusal)
    assert refusal.nearest == pytest.approx(0.76, abs=1e-3)
    _, plan, loaded = run(method, "llama", refusal.nearest)
    assert plan.size == student.count_params(loaded)
    assert torch.equal(loaded(tiny.tokens()).logits, small(tiny.tokens()).logits)
    with pytest.raises(MethodError, match=r"checkpoint: .*nowhere.config.json cannot be read"):
        DistilGPT2(checkpoint=str(tmp_path / "nowhere")).plan(tiny.config("llama"), Budget(value=0.7))


def test_identity_is_a_copy():
    teacher = tiny.teacher("gpt2")
    made = Identity().compress(teacher, Identity().plan(teacher.config, None), seed=0, statistics={})
    for (name, ours), (_, theirs) in zip(made.named_parameters(), teacher.named_parameters(), strict=True):
        assert torch.equal(ours, theirs), name
        assert ours.data_ptr() != theirs.data_ptr()


def test_svd_leaves_biases_and_finds_the_optimum():
    teacher, plan, made = run(Svd(), "gpt2", 0.7)
    for path, spec in plan.surgery.items():
        dense, layer = teacher.get_submodule(path), made.get_submodule(path)
        weight = weight_OI(dense).detach().double()
        dropped = torch.linalg.svdvals(weight)[spec["rank"] :]
        error = torch.linalg.vector_norm(weight - layer.materialise().detach().double())
        assert float(error) == pytest.approx(float(dropped.square().sum().sqrt()), rel=1e-4)
        assert torch.equal(layer.bias, dense.bias)


def test_kronecker_splits_query_key_and_value():
    teacher, plan, made = run(Kronecker(embedding=True), "gpt2", 0.7)
    path = "transformer.h.1.attn.c_attn"
    assert plan.surgery[path]["splits"] == 3
    weight = made.get_submodule(path).materialise().detach()
    whole = weight_OI(teacher.get_submodule(path)).detach()
    for part, split in zip(weight.chunk(3), whole.chunk(3), strict=True):
        residual = torch.linalg.vector_norm((split - part).double())
        # The nearest Kronecker product is orthogonal to its residual.
        assert float((part * (split - part)).sum()) == pytest.approx(0, abs=1e-3 * float(part.square().sum()))
        assert residual < torch.linalg.vector_norm(split.double())


def test_kronecker_taps_pair_embedding_attention_and_hidden_states():
    method, config = Kronecker(), tiny.config("gpt2")
    taps = method.taps(config, method.plan(config, Budget(value=0.7)))
    assert [(tap.kind, tap.loss, tap.student) for tap in taps] == [
        ("output", "mse", "transformer.wte"),
        *[("attention", "kl", f"transformer.h.{i}.attn") for i in range(4)],
        *[("output", "mse", f"transformer.h.{i}") for i in range(4)],
    ]
    assert all(tap.teacher == tap.student for tap in taps)


def test_distilgpt2_taps_the_last_hidden_state():
    (tap,) = DistilGPT2().taps(tiny.config("llama"), Plan(size=1))
    assert (tap.teacher, tap.student, tap.loss) == ("model.norm", "model.norm", "cosine")


def test_recipes_are_complete_or_absent():
    recipes = {name: registry.load(name)().recipe() for name in ("distilgpt2", "kronecker", "tensor_train")}
    assert all(isinstance(each, Recipe) for each in recipes.values())
    assert recipes["distilgpt2"].losses.temperature == 2.0
    assert recipes["kronecker"].losses.kd == 0.0
    assert recipes["tensor_train"].steps * recipes["tensor_train"].warmup_fraction == pytest.approx(4000, rel=1e-3)
    assert Svd().recipe() is None


def test_shards_are_read_together(tmp_path):
    teacher = tiny.teacher("llama")
    student.save(teacher, tmp_path)
    held = sorted(load_file(tmp_path / "model.safetensors").items())
    (tmp_path / "model.safetensors").unlink()
    shards = {"a.safetensors": dict(held[:9]), "b.safetensors": dict(held[9:])}
    for name, tensors in shards.items():
        save_file(tensors, tmp_path / name)
    index = {"weight_map": {key: name for name, tensors in shards.items() for key in tensors}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert torch.equal(student.load(tmp_path)(tiny.tokens()).logits, teacher(tiny.tokens()).logits)
