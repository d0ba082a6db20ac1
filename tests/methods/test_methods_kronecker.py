"""Kronecker layouts by hand: published counts, the solver's rule, fits against numpy, starts and refusals."""

from itertools import product

import numpy as np
import pytest
import torch
from transformers import GPT2Config, LlamaConfig

from methods import student, tiny
from methods.families import architecture, weight_OI
from methods.fields import decode, settle
from methods.interface import Budget, MethodError, Plan, Refusal
from methods.kronecker import Kronecker
from methods.kronecker_factors import embedding_factors, matrix_factors, normalised, pruning_factors
from methods.kronecker_planning import left_shape
from methods.planning import counted

FFN = {"matrices": "ffn", "scales": True}


def mirrored(m1, n1):
    return {"up": (m1, n1), "down": (n1, m1)}


def built(config, plan):
    with torch.device("meta"):
        return student.build(config, plan.surgery, changes=plan.config_changes)


def decaying(rows, columns, seed=0):
    """Singular values 1 / (1 + i), as numpy sees them."""
    generator = np.random.default_rng(seed)
    u, _, vt = np.linalg.svd(generator.standard_normal((rows, columns)), full_matrices=False)
    return torch.from_numpy(u / (1 + np.arange(len(vt))) @ vt)


def blocks(weight, m1, n1):
    """Row (i, j): the block (i, j) of W, flattened; cut out one by one."""
    m2, n2 = weight.shape[0] // m1, weight.shape[1] // n1
    cut = [weight[i * m2 : (i + 1) * m2, j * n2 : (j + 1) * n2].reshape(-1) for i, j in product(range(m1), range(n1))]
    return torch.stack(cut).numpy()


def dense(factors):
    """The matrix that named factors stand for, by numpy's Kronecker product."""
    scales = factors.get("scales", torch.ones(factors["left"].shape[:2]))
    splits = [
        sum(s * np.kron(a, b) for s, a, b in zip(*each, strict=True))
        for each in zip(scales.numpy(), factors["left"].numpy(), factors["right"].numpy(), strict=True)
    ]
    return np.concatenate(splits)


@pytest.mark.parametrize("name", Kronecker.presets)
def test_a_preset_has_the_published_counts_with_and_without_its_own_size_as_budget(name):
    config = GPT2Config()
    method = settle(Kronecker(preset=name))
    plan = method.plan(config, None)
    assert isinstance(plan, Plan)
    for rule, published in Kronecker.presets[name].counts.items():
        assert counted(architecture(config), plan, rule) == published
    assert plan.size == student.count_params(built(config, plan))
    assert method.plan(config, Budget(value=plan.size)) == plan
    assert isinstance(method.plan(config, Budget(value=0.5)), Refusal)
    assert not method.exact_at_full


def test_kngpt2_counts_its_dense_output_matrix_with_and_without_the_attention_output():
    config = GPT2Config()
    for output, whole, without in ((True, 122_504_906, 83_907_530), (False, 124_274_366, 85_676_990)):
        plan = settle(Kronecker(preset="kngpt2", attention_output=output)).plan(config, None)
        assert (plan.size, counted(architecture(config), plan, "without_output_matrix")) == (whole, without)
        assert {path.split(".")[2] for path in plan.surgery if ".h." in path} == {"1", "3", "5", "7", "9", "11"}
        assert any(path.endswith("attn.c_proj") for path in plan.surgery) == output
        assert plan.surgery["transformer.h.1.attn.c_attn"]["splits"] == 3
        assert not built(config, plan).config.tie_word_embeddings


@pytest.mark.parametrize(
    ("left", "terms", "size"),
    [
        ((1024, 256), 1, 74_108_376),
        ((1024, 256), 2, 80_400_048),
        ((1024, 256), 4, 92_983_392),
        ((64, 32), 1, 67_893_504),
        ((768, 768), 1, 81_972_576),
        ((1536, 384), 1, 81_972_576),
        ((3072, 384), 1, 96_128_304),
        ((1536, 768), 1, 96_128_304),
    ],
)
def test_kronys_shapes_have_its_counts(left, terms, size):
    config = GPT2Config()
    plan = Kronecker(**FFN, terms=terms, shapes=mirrored(*left)).plan(config, None)
    assert counted(architecture(config), plan, "scales_folded") == size
    assert plan.size == size + 24 * terms == student.count_params(built(config, plan))


def test_kngpt2s_shapes_are_what_the_solver_takes_at_its_size():
    config = GPT2Config()
    given = settle(Kronecker(preset="kngpt2")).plan(config, None)
    solved = Kronecker(head="untied").plan(config, Budget(value=given.size))
    assert solved == given


def test_a_preset_with_its_output_matrix_tied_has_the_size_that_its_paper_counts():
    for name, preset in (("kronecker", "kngpt2"), ("tq", "tq-81m")):
        untied = settle(decode(name, {"preset": preset})).plan(GPT2Config(), None)
        tied = settle(decode(name, {"preset": preset, "head": "tied"})).plan(GPT2Config(), None)
        assert tied.size == counted(architecture(GPT2Config()), untied, "without_output_matrix")
        assert tied.surgery == untied.surgery


@pytest.mark.parametrize(("rows", "columns"), [(768, 768), (3072, 768), (768, 3072), (192, 576), (48, 144)])
@pytest.mark.parametrize("terms", [1, 2, 4])
@pytest.mark.parametrize("step", [2, 4, 8])
def test_the_solvers_shape_is_the_best_by_its_stated_rule(rows, columns, terms, step):
    """Against a list of all shapes of this kept fraction, with multiply-adds counted product by product."""
    entries = terms * step
    table = {}
    for m2, n2 in product(range(1, entries + 1), repeat=2):
        if m2 * n2 != entries or rows % m2 or columns % n2:
            continue
        m1, n1 = rows // m2, columns // n2
        macs = terms * min(m1 * n1 * n2 + m1 * m2 * n2, n1 * m2 * n2 + n1 * m1 * m2)
        rank = min(rows, columns, terms * min(m1, n1) * min(m2, n2))
        if macs <= 0.8 * rows * columns:
            table[m1, n1] = (-rank, macs, -m2)
    assert left_shape(rows, columns, step=step, terms=terms, max_macs=0.8) == min(table, key=table.__getitem__)


def test_no_solved_layer_takes_more_multiply_adds_than_allowed():
    config = GPT2Config()
    for terms, limit in ((1, 0.8), (4, 0.8), (4, 0.3)):
        plan = Kronecker(terms=terms, max_macs=limit, embedding=False).plan(config, Budget(value=0.75))
        assert isinstance(plan, Plan)
        model = built(config, plan)
        for path in plan.surgery:
            layer = model.get_submodule(path)
            assert layer.macs_per_token <= limit * layer.out_features * layer.in_features
    assert left_shape(768, 768, step=2, terms=1, max_macs=0.1) is None


@pytest.mark.parametrize("terms", [1, 3])
@pytest.mark.parametrize("label", tiny.TEACHERS)
def test_several_terms_and_scales_meet_budgets_on_both_families(label, terms):
    config = tiny.config(label)
    whole = architecture(config).num_params
    for value in (0.66, 0.8, 0.9):
        plan = Kronecker(terms=terms, scales=True).plan(config, Budget(value=value))
        assert isinstance(plan, Plan)
        assert abs(plan.size - value * whole) <= 0.02 * value * whole
        assert plan.size == student.count_params(built(config, plan))
    assert Kronecker(terms=terms, head="untied").plan(config, Budget(value=1.0)) == Plan(size=whole)


@pytest.mark.parametrize(("left", "terms"), [((12, 16), 2), ((6, 4), 5), ((24, 8), 2), ((3, 16), 8)])
def test_a_fit_of_several_terms_has_the_singular_values_left_out_as_its_error(left, terms):
    weight = decaying(24, 32)
    factors = matrix_factors(weight, {"left": left, "splits": 1, "terms": terms})
    singular = np.linalg.svd(blocks(weight, *left), compute_uv=False)
    error = np.linalg.norm(weight.numpy() - dense(factors))
    assert error == pytest.approx(np.sqrt((singular[terms:] ** 2).sum()), rel=1e-6)


def test_each_split_has_a_fit_of_its_own():
    weight = decaying(36, 16)
    spec = {"left": (6, 8), "splits": 3, "terms": 2, "scaled": True}
    whole = dense(matrix_factors(weight, spec))
    for part, split in zip(np.split(whole, 3), weight.chunk(3), strict=True):
        alone = matrix_factors(split, {"left": (6, 8), "splits": 1, "terms": 2})
        np.testing.assert_allclose(part, dense(alone), atol=1e-9)


@pytest.mark.parametrize("terms", [1, 3])
def test_adaptive_normalisation_restores_each_splits_norm(terms):
    weight = decaying(36, 16)
    spec = {"left": (9, 8), "splits": 2, "terms": terms, "scaled": True}
    plain = matrix_factors(weight, spec)
    scaled = normalised(plain, weight)
    for split, before, after in zip(
        weight.chunk(2), np.split(dense(plain), 2), np.split(dense(scaled), 2), strict=True
    ):
        assert np.linalg.norm(after) == pytest.approx(float(torch.linalg.vector_norm(split)), rel=1e-12)
        assert np.linalg.norm(before) < 0.99 * np.linalg.norm(after)
        np.testing.assert_allclose(after / np.linalg.norm(after), before / np.linalg.norm(before), atol=1e-12)
    zero = normalised(matrix_factors(torch.zeros_like(weight), spec), torch.zeros_like(weight))
    assert torch.isfinite(zero["scales"]).all()


def test_pruning_keeps_every_second_row_or_column_and_a_tenth_of_it_for_the_next():
    weight = torch.arange(24.0).reshape(4, 6)
    up = pruning_factors(weight, {"left": [2, 6], "splits": 1, "scaled": True})
    assert torch.equal(up["left"][0, 0], weight[[0, 2]].double())
    np.testing.assert_allclose(dense(up)[0], weight[0])
    np.testing.assert_allclose(dense(up)[3], 0.1 * weight[2])
    down = pruning_factors(weight, {"left": [4, 3], "splits": 1})
    assert torch.equal(down["left"][0, 0], weight[:, [0, 2, 4]].double())
    np.testing.assert_allclose(dense(down)[:, 4], weight[:, 4])
    np.testing.assert_allclose(dense(down)[:, 5], 0.1 * weight[:, 4])
    with pytest.raises(MethodError, match=r"pruning needs a B of 2 entries, shapes \[2, 3\] leaves 2 x 2"):
        pruning_factors(weight, {"left": [2, 3], "splits": 1})


@pytest.mark.parametrize("label", ["gpt2", "llama"])
def test_pruning_reads_both_families_out_by_in(label):
    teacher = tiny.teacher(label)
    inner = {"gpt2": 192, "llama": 144}[label]
    shapes = {"up": (inner // 2, 48), "down": (48, inner // 2)}
    method = Kronecker(initialisation="pruning", **FFN, shapes=shapes)
    plan = method.plan(teacher.config, None)
    made = method.compress(teacher, plan, seed=0, statistics={})
    roles = {each.path: each.role for each in architecture(teacher.config).matrices}
    for path in plan.surgery:
        ours = weight_OI(student.materialise(made).get_submodule(path))
        theirs = weight_OI(teacher.get_submodule(path))
        if roles[path] == "down":
            ours, theirs = ours.T, theirs.T
        torch.testing.assert_close(ours[0::2], theirs[0::2])
        torch.testing.assert_close(ours[1::2], 0.1 * theirs[0::2])


def test_the_embedding_is_split_one_factor_at_a_time():
    weight = decaying(30, 16)
    factors = embedding_factors(weight, [2, 4])
    assert [tuple(each.shape) for each in factors.values()] == [(30, 2), (1, 4), (1, 2)]
    assert list(factors) == ["left", "right_1", "right_0"]
    u, s, vt = np.linalg.svd(blocks(weight, 30, 4), full_matrices=False)
    first = np.sqrt(s[0]) * u[:, 0].reshape(30, 4)
    second = np.linalg.svd(blocks(torch.from_numpy(first), 30, 2), full_matrices=False)
    rest = second[1][0] * np.kron(second[0][:, 0].reshape(30, 2), second[2][:1])
    expected = np.kron(rest, np.sqrt(s[0]) * vt[:1])
    made = np.kron(np.kron(factors["left"], factors["right_0"]), factors["right_1"])
    np.testing.assert_allclose(made, expected, atol=1e-9)


def test_the_untied_head_is_the_teachers_embedding():
    teacher = tiny.teacher("gpt2")
    shapes = {"up": (96, 48), "down": (48, 96)}
    for method in (Kronecker(head="untied", shapes=shapes), Kronecker(head="untied", embedding=True, shapes=shapes)):
        plan = method.plan(teacher.config, None)
        made = method.compress(teacher, plan, seed=0, statistics={})
        assert plan.surgery["transformer.wte"] == {"type": "kronecker.embedding", "factors": [2]}
        assert torch.equal(made.lm_head.weight, teacher.transformer.wte.weight)
        assert plan.size == student.count_params(made)
    untied = Kronecker(head="untied").plan(tiny.config("gpt2-untied"), Budget(value=0.8))
    assert isinstance(untied, Plan)
    assert not untied.config_changes


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"terms": 0}, "terms: 0 is no number of products; nearest: 1"),
        ({"max_macs": 0.0}, "max_macs: 0.0 leaves no shape"),
        ({"head": "untied", "embedding": False}, "head: untied needs a factorised embedding"),
        ({"normalise": True}, "normalise: .*; nearest: scales: true"),
        ({"preset": "kngpt2", "normalise": True}, "normalise: .*; nearest: scales: true"),
        ({"initialisation": "pruning"}, "initialisation: pruning needs shapes"),
        ({"preset": "krony-96m", "initialisation": "pruning", "terms": 2}, "pruning is one product, terms is 2"),
        ({"shapes": {}}, "shapes: names no matrix"),
        ({"shapes": {"upp": (4, 4)}}, "shapes: 'upp' is no role; did you mean 'up'"),
        ({"shapes": {"up": (4, 4)}, "matrices": "attention"}, "shapes: 'up' is outside matrices: attention"),
    ],
)
def test_fields_that_make_no_sense_are_refused_in_one_line(fields, message):
    with pytest.raises(MethodError, match=message) as refused:
        Kronecker(**fields)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shapes": {"up": (5, 48)}}, r"shapes: up \[5, 48\] does not divide 192 x 48"),
        ({"shapes": {"gate": (4, 4)}}, "shapes: this model has no 'gate'"),
        ({"shapes": {"up": (96, 48)}, "terms": 3}, r"terms: 3 is more than up \[96, 48\] can use; at most 2"),
        ({"layers": (7,)}, "layers: 7 is no block of this model"),
    ],
)
def test_shapes_that_the_model_cannot_have_are_refused(fields, message):
    with pytest.raises(MethodError, match=message):
        Kronecker(**fields).plan(tiny.config("gpt2"), Budget(value=0.8))


def test_a_sweep_may_write_all_of_it():
    fields = {"matrices": "ffn", "shapes": {"up": [96, 48], "down": [48, 96]}, "terms": 2, "scales": True}
    method = decode("kronecker", {**fields, "normalise": True, "layers": [0, 3]})
    plan = method.plan(tiny.config("gpt2"), None)
    assert isinstance(plan, Plan)
    assert plan.surgery["transformer.h.3.mlp.c_fc"] == {
        "type": "kronecker",
        "left": [96, 48],
        "splits": 1,
        "terms": 2,
        "scaled": True,
    }
    assert decode("kronecker", {"preset": "krony-96m", "normalise": True}).normalise


def test_kronys_presets_train_by_its_recipe_and_compare_nothing():
    krony, kngpt2 = Kronecker(preset="krony-81m"), Kronecker(preset="kngpt2")
    recipe = krony.recipe()
    assert recipe.batch_tokens == 120 * 1024
    assert 500 <= recipe.warmup_fraction * recipe.steps <= 1500
    assert recipe.learning_rate * recipe.final_fraction == pytest.approx(6e-6)
    assert not recipe.losses.needs_teacher
    assert kngpt2.recipe() == Kronecker().recipe() != recipe
    assert krony.taps(GPT2Config(), Plan(size=1)) == []
    assert kngpt2.taps(GPT2Config(), Plan(size=1))


def test_llamas_gate_is_a_role_of_its_own():
    config = tiny.config("llama")
    assert isinstance(config, LlamaConfig)
    plan = Kronecker(shapes={"gate": (72, 48), "k": (12, 48)}).plan(config, None)
    assert {path.rpartition(".")[2] for path in plan.surgery} == {"gate_proj", "k_proj"}
