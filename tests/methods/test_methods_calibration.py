"""Calibration statistics against the same quantities computed by hand."""

import numpy as np
import pytest
import torch

from methods import tiny
from methods.calibration import measure
from methods.families import architecture, weight_OI
from methods.interface import MethodError

LABELS = ("gpt2", "llama-untied")
BATCHES = [tiny.tokens(3, 20), tiny.tokens(4, 32)[3:]]
"""Four sequences of two lengths, 92 tokens."""


def outputs(model, paths):
    """The outputs of modules over all batches, tokens x features, in float64."""
    found = {path: [] for path in paths}
    handles = [
        model.get_submodule(path).register_forward_hook(
            lambda module, inputs, output, path=path: found[path].append(output.flatten(0, -2).double().numpy())
        )
        for path in paths
    ]
    with torch.no_grad():
        for batch in BATCHES:
            model(batch)
    for handle in handles:
        handle.remove()
    return {path: np.concatenate(each) for path, each in found.items()}


def inputs_of_matrices(model, label):
    """What each distinct input of the second block's matrices is, from the modules in front of them."""
    if label == "gpt2":
        block = "transformer.h.1"
        got = outputs(model, [f"{block}.{each}" for each in ("ln_1", "ln_2", "mlp.act")])
        return {
            f"{block}.attn.c_attn": got[f"{block}.ln_1"],
            f"{block}.mlp.c_fc": got[f"{block}.ln_2"],
            f"{block}.mlp.c_proj": got[f"{block}.mlp.act"],
        }
    block = "model.layers.1"
    names = ("input_layernorm", "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj")
    normed, after, gate, up = outputs(model, [f"{block}.{each}" for each in names]).values()
    return {
        f"{block}.self_attn.q_proj": normed,
        f"{block}.mlp.gate_proj": after,
        f"{block}.mlp.down_proj": gate / (1 + np.exp(-gate)) * up,
    }


@pytest.mark.parametrize("label", LABELS)
def test_gram_and_abs_mean_are_those_of_the_inputs(label):
    model = tiny.teacher(label)
    gram, abs_mean = measure("gram", model, BATCHES), measure("abs_mean", model, BATCHES)
    assert set(gram) == set(abs_mean) == {each.reads for each in architecture(model.config).matrices}
    for path, x_NI in inputs_of_matrices(model, label).items():
        assert len(x_NI) == 92
        assert gram[path].dtype == abs_mean[path].dtype == torch.float64
        np.testing.assert_allclose(gram[path], np.einsum("ni,nj->ij", x_NI, x_NI), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(abs_mean[path], np.abs(x_NI).mean(axis=0), rtol=1e-5)
        assert float(torch.linalg.eigvalsh(gram[path]).min()) > -1e-12 * float(gram[path].trace())


@pytest.mark.parametrize("label", LABELS)
def test_fisher_is_the_mean_square_of_each_sequences_gradient(label):
    model = tiny.teacher(label)
    rows, columns = measure("fisher_rows", model, BATCHES), measure("fisher_columns", model, BATCHES)
    squares = {each.path: [] for each in architecture(model.config).matrices}
    for sequence in (row for batch in BATCHES for row in batch):
        model.zero_grad()
        log_probabilities = model(sequence[None]).logits[0, :-1].log_softmax(dim=-1)
        (-log_probabilities[range(len(sequence) - 1), sequence[1:]].mean()).backward()
        for path, found in squares.items():
            module = model.get_submodule(path)
            gradient = module.weight.grad.T if label == "gpt2" else module.weight.grad
            assert gradient.shape == weight_OI(module).shape
            found.append(gradient.double().numpy() ** 2)
    assert set(rows) == set(columns) == set(squares)
    for path, found in squares.items():
        information_OI = np.mean(found, axis=0)
        np.testing.assert_allclose(rows[path], information_OI.sum(axis=1), rtol=1e-4)
        np.testing.assert_allclose(columns[path], information_OI.mean(axis=0), rtol=1e-4)


@pytest.mark.parametrize("label", LABELS)
def test_block_influence_is_one_minus_the_mean_cosine(label):
    model = tiny.teacher(label)
    dense = architecture(model.config)
    influence = measure("block_influence", model, BATCHES)
    assert list(influence) == list(dense.blocks)
    ends = outputs(model, [*dense.blocks, dense.embedding])
    before = ends[dense.embedding]
    if label == "gpt2":
        positions = np.concatenate([np.tile(np.arange(batch.shape[1]), len(batch)) for batch in BATCHES])
        before = before + model.transformer.wpe.weight.detach().double().numpy()[positions]
    for path in dense.blocks:
        after = ends[path]
        norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
        assert float(influence[path]) == pytest.approx(1 - ((before * after).sum(axis=1) / norms).mean(), abs=1e-6)
        before = after


@pytest.mark.parametrize("statistic", ["gram", "abs_mean", "fisher_rows", "fisher_columns", "block_influence"])
def test_the_model_is_left_as_it_was_and_batching_does_not_matter(statistic):
    model = tiny.teacher("gpt2").train()
    model.transformer.h[0].eval()
    model.transformer.ln_f.requires_grad_(False)
    for dropout in (each for each in model.modules() if isinstance(each, torch.nn.Dropout)):
        dropout.p = 0.5
    kept = torch.ones_like(model.transformer.wpe.weight)
    model.transformer.wpe.weight.grad = kept
    modes = [module.training for module in model.modules()]
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    done = []
    together = measure(statistic, model, [tiny.tokens()], done.append)
    one_by_one = measure(statistic, model, tiny.tokens().split(1), done.append)
    assert done == [4, 1, 2, 3, 4]
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == wanted
    assert [each for each in model.parameters() if each.grad is not None] == [model.transformer.wpe.weight]
    assert model.transformer.wpe.weight.grad is kept
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    for path, value in together.items():
        torch.testing.assert_close(one_by_one[path], value, rtol=1e-4, atol=1e-6 * float(value.abs().max()))


def test_an_unknown_statistic_and_no_text_are_refused():
    with pytest.raises(MethodError, match="statistic 'gramm' is not known; did you mean 'gram'"):
        measure("gramm", tiny.teacher("gpt2"), BATCHES)
    with pytest.raises(MethodError, match="no tokens to measure on"):
        measure("gram", tiny.teacher("gpt2"), [])
