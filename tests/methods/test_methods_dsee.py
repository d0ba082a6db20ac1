"""The pruned part, the low-rank term and the sparse one, each against numpy; heads and neurons really removed."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from transformers import GPT2Config, LlamaConfig
from transformers.pytorch_utils import Conv1D

from methods import conformance, student, tiny
from methods.dsee import Dsee
from methods.families import architecture, weight_OI
from methods.fields import decode
from methods.interface import Budget, MethodError, Plan, Refusal
from methods.layers.sparse_low_rank import SparseLowRankLinear, unpack_bits
from methods.sparse_split import low_rank_start, structured_split, unstructured_split

NEURON = 3 * 48
"""Parameters of one of llama's; without the last one every block has the same number."""


def run(method, label, value):
    teacher = tiny.teacher(label)
    plan = method.plan(teacher.config, Budget(value=value))
    assert isinstance(plan, Plan), plan
    return teacher, plan, method.compress(teacher, plan, seed=0, statistics={})


def test_the_unstructured_split_is_what_numpy_computes():
    weight = np.random.default_rng(0).standard_normal((13, 21))
    kept, rank, residual = 100, 3, 7
    found = unstructured_split(torch.from_numpy(weight), kept, rank, residual)

    threshold = np.sort(np.abs(weight), axis=None)[-kept]
    where = np.abs(weight) >= threshold
    u, s, vt = np.linalg.svd(np.where(where, 0, weight))
    low_rank = u[:, :rank] * s[:rank] @ vt[:rank]
    rest = np.where(where, 0, weight) - low_rank
    corrected = np.abs(rest) >= np.sort(np.abs(rest), axis=None)[-residual]
    expected = np.where(where, weight, 0) + low_rank + np.where(corrected, rest, 0)

    assert np.array_equal(np.unpackbits(found["mask"].numpy())[: weight.size].reshape(weight.shape), where)
    spec = {"kept": kept, "rank": rank, "residual": residual}
    layer = SparseLowRankLinear.from_spec(spec, 13, 21, bias=True).double()
    layer.load_state_dict(found | {"bias": torch.arange(13)})
    np.testing.assert_allclose(layer.materialise().detach().numpy(), expected, atol=1e-12)
    x = torch.randn(2, 5, 21, dtype=torch.float64)
    np.testing.assert_allclose(layer(x).detach().numpy(), x.numpy() @ expected.T + np.arange(13), atol=1e-10)


def test_ties_keep_the_earlier_entry_and_bits_are_numpys():
    found = unstructured_split(torch.tensor([[1.0, -1.0, 1.0], [1.0, 0.0, 2.0]]), 3, 1, 1)
    assert np.unpackbits(found["mask"].numpy()).tolist() == [1, 1, 0, 0, 0, 1, 0, 0]
    bits = np.random.default_rng(1).integers(0, 2, 19).astype(bool)
    assert unpack_bits(torch.from_numpy(np.packbits(bits)), 19).tolist() == bits.tolist()


def test_a_term_with_nothing_to_approximate_is_small_and_not_zero():
    weight = tiny.teacher("gpt2").transformer.h[0].attn.c_proj.weight.detach().double()
    removed = torch.zeros_like(weight)
    removed[3] = weight[3]
    left, right = low_rank_start(removed, weight, 3)
    norm = torch.linalg.matrix_norm(weight)
    assert torch.linalg.matrix_norm(removed - left @ right) < 2e-3 * norm
    assert (torch.linalg.vector_norm(left, dim=0) > 1e-4).all()
    assert (torch.linalg.vector_norm(right, dim=1) > 1e-4).all()


def test_the_structured_split_approximates_what_is_removed():
    weight = torch.randn(12, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = torch.tensor([0, 3, 4, 9])
    found = structured_split(weight, rows, torch.arange(8), 2, 5)
    removed = weight.numpy().copy()
    removed[rows.numpy()] = 0
    u, s, vt = np.linalg.svd(removed)
    np.testing.assert_allclose((found["left"] @ found["right"]).numpy(), u[:, :2] * s[:2] @ vt[:2], atol=1e-12)
    assert torch.equal(found["kept"], weight[rows])
    assert not found["residual"].any()
    largest = np.argsort(-np.abs(weight[rows].numpy()), axis=None)[:5]
    assert found["places"].tolist() == sorted(largest.tolist())


def strongest(norms, count):
    return sorted(sorted(range(len(norms)), key=lambda i: -norms[i])[:count])


def shrunk_gpt2(teacher, heads, neurons):
    """A copy of the teacher with fewer heads and neurons, rebuilt from smaller stock layers, block by block."""
    small, size = deepcopy(teacher), teacher.config.n_embd // teacher.config.n_head
    for block, h, n in zip(small.transformer.h, heads, neurons, strict=True):
        attn, mlp, d = block.attn, block.mlp, teacher.config.n_embd
        qkv, o = attn.c_attn.weight.detach(), attn.c_proj.weight.detach()
        up, down = mlp.c_fc.weight.detach(), mlp.c_proj.weight.detach()
        sums = [
            float(qkv.abs().reshape(d, 3, -1, size)[:, :, i].sum() + o.abs()[i * size : (i + 1) * size].sum())
            for i in range(teacher.config.n_head)
        ]
        keep = strongest(sums, h)
        at = torch.cat([torch.arange(i * size, (i + 1) * size) for i in keep])
        three = torch.cat([at, d + at, 2 * d + at])
        attn.c_attn, bias = Conv1D(3 * h * size, d), attn.c_attn.bias.detach()
        attn.c_attn.weight.data, attn.c_attn.bias.data = qkv[:, three], bias[three]
        attn.c_proj.weight.data = o[at]
        attn.num_heads, attn.split_size = h, h * size
        keep = strongest((up.abs().sum(0) + down.abs().sum(1)).tolist(), n)
        mlp.c_fc, bias = Conv1D(n, d), mlp.c_fc.bias.detach()
        mlp.c_fc.weight.data, mlp.c_fc.bias.data = up[:, keep], bias[keep]
        mlp.c_proj.weight.data = down[keep]
    return small


def shrunk_llama(teacher, groups, neurons):
    """The same for Llama, where a key-value group goes with its queries; the same number in every block."""
    config = teacher.config
    (g,), (n,) = set(groups), set(neurons)
    size, per = config.head_dim, config.num_attention_heads // config.num_key_value_heads
    fields = config.to_dict() | {"num_key_value_heads": g, "num_attention_heads": g * per, "intermediate_size": n}
    small = student.build(LlamaConfig(**fields), {})
    weights = teacher.state_dict()
    for i in range(config.num_hidden_layers):
        path = f"model.layers.{i}."
        q, k, v, o = (weights[f"{path}self_attn.{name}_proj.weight"] for name in "qkvo")
        sums = []
        for j in range(config.num_key_value_heads):
            wide, narrow = slice(j * per * size, (j + 1) * per * size), slice(j * size, (j + 1) * size)
            sums.append(float(q[wide].abs().sum() + k[narrow].abs().sum() + v[narrow].abs().sum()))
            sums[-1] += float(o[:, wide].abs().sum())
        keep = strongest(sums, g)
        narrow = torch.cat([torch.arange(j * size, (j + 1) * size) for j in keep])
        wide = torch.cat([torch.arange(j * per * size, (j + 1) * per * size) for j in keep])
        gate, up, down = (weights[f"{path}mlp.{name}_proj.weight"] for name in ("gate", "up", "down"))
        alive = strongest((gate.abs().sum(1) + up.abs().sum(1) + down.abs().sum(0)).tolist(), n)
        new = {"self_attn.q_proj": q[wide], "self_attn.k_proj": k[narrow], "self_attn.v_proj": v[narrow]}
        new |= {"self_attn.o_proj": o[:, wide]}
        new |= {"mlp.gate_proj": gate[alive], "mlp.up_proj": up[alive], "mlp.down_proj": down[:, alive]}
        weights |= {f"{path}{name}.weight": each for name, each in new.items()}
    small.load_state_dict(weights)
    return small


@pytest.mark.parametrize("label", ["gpt2", "gpt2-untied", "llama"])
def test_structured_removal_is_a_model_with_fewer_heads_and_neurons(label):
    """Without U V and S2 the student is a physically smaller model."""
    even = Dsee(mask="structured").plan(tiny.config(label), Budget(value=0.55)).size - NEURON * (label == "llama")
    teacher, plan, made = run(Dsee(mask="structured"), label, even)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.rpartition(".")[2] in ("left", "residual"):
                parameter.zero_()
    dense = architecture(teacher.config)
    size = dense.width // teacher.config.num_attention_heads
    groups = {m.block: plan.surgery[m.path]["columns"] // size for m in dense.matrices if m.role == "o"}
    neurons = {m.block: plan.surgery[m.path]["rows"] for m in dense.matrices if m.role == "up"}
    if label == "llama":
        groups = {i: heads // 2 for i, heads in groups.items()}
    shrink = shrunk_llama if label == "llama" else shrunk_gpt2
    small = shrink(teacher, groups.values(), neurons.values())
    assert student.count_params(small) < 0.6 * student.count_params(teacher)
    with torch.no_grad():
        torch.testing.assert_close(made(tiny.tokens()).logits, small(tiny.tokens()).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("mask", ["unstructured", "structured"])
def test_only_the_new_terms_and_the_classification_head_train(mask, tmp_path):
    _, plan, made = run(Dsee(mask=mask), "gpt2", 0.6)
    student.save(made, tmp_path)
    with torch.random.fork_rng(devices=[]):
        classifier = student.load(tmp_path, head="classification", num_labels=2)
    classifier.config.pad_token_id = 0
    before = {name: each.detach().clone() for name, each in classifier.named_parameters()}
    trains = [each for each in classifier.parameters() if each.requires_grad]
    optimiser = torch.optim.SGD(trains, lr=1e-2)
    classifier(tiny.tokens(), labels=torch.tensor([0, 1, 1, 0])).loss.backward()
    optimiser.step()
    changed = {name for name, each in classifier.named_parameters() if not torch.equal(each, before[name])}
    added = {f"{path}.{name}" for path in plan.surgery for name in ("left", "right", "residual")}
    assert changed == added | {"score.weight"}


@pytest.mark.parametrize("mask", ["unstructured", "structured"])
def test_gpt2_small_meets_the_budget_and_counts_are_by_hand(mask):
    plan = Dsee(mask=mask).plan(GPT2Config(), Budget(value=0.66))
    assert isinstance(plan, Plan)
    with torch.device("meta"):
        model = student.build(GPT2Config(), plan.surgery, trained=plan.trained)
    assert plan.size == student.count_params(model) == pytest.approx(0.66 * 124_439_808, rel=1e-4)
    trained = sum(each.numel() for each in model.parameters() if each.requires_grad)
    shapes = [(2304, 768), (768, 768), (3072, 768), (768, 3072)]
    assert trained == 12 * sum(8 * (m + n) + round(0.001 * m * n) for m, n in shapes)
    layer = model.get_submodule("transformer.h.0.mlp.c_fc")
    if mask == "unstructured":
        assert layer.mask.numel() == 3072 * 768 // 8
        assert layer.macs_per_token == 3072 * 768
    else:
        assert layer.macs_per_token == layer.kept.numel() + 8 * (3072 + 768) < 0.6 * 3072 * 768


def test_a_full_budget_is_the_teacher_and_trains_as_a_whole():
    teacher, plan, made = run(Dsee(), "llama", 1.0)
    assert plan.surgery == {} == dict.fromkeys(plan.trained)
    assert torch.equal(made(tiny.tokens()).logits, teacher(tiny.tokens()).logits)


@pytest.mark.parametrize("mask", ["unstructured", "structured"])
def test_an_impossible_budget_names_one_that_is_met(mask):
    for value in (0.01, 10**9):
        refusal = Dsee(mask=mask).plan(tiny.config("llama"), Budget(value=value))
        assert isinstance(refusal, Refusal)
        assert isinstance(Dsee(mask=mask).plan(tiny.config("llama"), Budget(value=refusal.nearest)), Plan)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rank": 0}, "rank: 0 is too low; nearest: 1"),
        ({"residual": 1.5}, r"residual: 1\.5 is no fraction"),
        ({"mask": "blocks"}, "mask"),
    ],
)
def test_impossible_fields_are_refused_by_name(values, message):
    with pytest.raises(MethodError, match=message):
        decode("dsee", values)


def test_pruned_weights_are_near_the_teachers_and_nearer_with_the_other_terms():
    teacher, plan, made = run(Dsee(), "gpt2", 0.6)
    for path in plan.surgery:
        weight, layer = weight_OI(teacher.get_submodule(path)).detach(), made.get_submodule(path)
        where = unpack_bits(layer.mask, weight.numel()).reshape(weight.shape)
        pruned = torch.linalg.matrix_norm(weight.masked_fill(where, 0))
        assert torch.linalg.matrix_norm(weight - layer.materialise().detach()) < 0.95 * pruned


def test_structured_conforms():
    findings = conformance.check_method(Dsee(mask="structured"), fast=True)
    assert [each for each in findings if each.status == "failed"] == []
