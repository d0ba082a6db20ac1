"""Every method there is passes the kit; the kit finds what is planted, follows refusals and fits a test suite."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from methods import conformance, registry, tiny
from methods.conformance import bench, kit, training
from methods.families import architecture
from methods.fields import decode
from methods.identity import Identity
from methods.interface import Budget, Method, MethodError, Plan, Refusal, Tap
from methods.kronecker import Kronecker
from methods.planning import accept, student_size
from methods.student import from_teacher, save
from methods.svd import Svd

REFUSALS = {
    (name, value) for name in ("distilgpt2", "embedding_svd", "tensor_gpt", "truncation") for value in (0.7, 0.85)
}
SINGLE_SIZE = "the error falls as the budget grows"
EXACT = "a full budget reproduces the teacher"


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def failures(method, **options):
    found = conformance.check_method(method, **{"fast": True, "teachers": ["gpt2"]} | options)
    return {f.check: f.message for f in found if f.status == "failed"}


def declared(method):
    """Checks that do not apply, by what the method says of itself."""
    return (
        ({SINGLE_SIZE} if not method.budgeted else set())
        | (set() if method.exact_at_full else {EXACT})
        | (set() if method.keeps_weights else {"replaced layers resemble the teacher's", "biases are kept"})
    )


@pytest.mark.parametrize("name", registry.names())
def test_built_ins_conform(name):
    findings = conformance.check(name, fast=True)
    assert [f for f in findings if f.status == "failed"] == []
    assert {f.teacher for f in findings} == set(conformance.FAST_TEACHERS)
    assert {f.check for f in findings if f.status == "n/a"} == declared(registry.load(name)())


@pytest.mark.slow
@pytest.mark.parametrize("name", registry.names())
def test_built_ins_conform_in_full(name):
    findings = conformance.check(name)
    assert [f for f in findings if f.status == "failed"] == []


def test_built_ins_refuse_only_what_is_listed():
    refused = set()
    for name in set(registry.names()) - {"identity"}:
        for value in conformance.BUDGETS:
            answers = [registry.load(name)().plan(tiny.config(label), Budget(value=value)) for label in tiny.TEACHERS]
            if any(isinstance(answer, Refusal) for answer in answers):
                refused.add((name, value))
    assert refused == REFUSALS


@dataclass(frozen=True, kw_only=True)
class Sloppy(Svd):
    """Breaks the contract in the way that `how` names."""

    how: str

    def plan(self, teacher_config, budget):
        plan = super().plan(teacher_config, budget)
        if self.how == "wrong size" and plan.surgery:
            return Plan(size=plan.size + 1, surgery=plan.surgery)
        if self.how == "no nearest":
            return Refusal(reason="not today")
        if self.how == "refuses its own" and budget.value == 0.7:
            return Refusal(reason="not today", nearest=0.7)
        if self.how == "not full" and not plan.surgery:
            return super().plan(teacher_config, Budget(value=0.99))
        return plan

    def compress(self, teacher, plan, *, seed, statistics):
        if self.how == "crash":
            return {}["missing"]
        if self.how == "changes teacher":
            teacher.get_parameter(next(iter(dict(teacher.named_parameters())))).data.mul_(1.5)
        student = super().compress(teacher, plan, seed=seed, statistics=statistics)
        if self.how == "random":
            next(student.parameters()).data.add_(torch.rand(()))
        if self.how == "dead factor":
            student.get_submodule(next(iter(plan.surgery), "lm_head")).requires_grad_(False)
        if self.how == "unties" and teacher.config.tie_word_embeddings:
            student.lm_head.weight = nn.Parameter(student.lm_head.weight.detach().clone())
        if self.how == "worse when larger" and not plan.surgery:
            student.transformer.h[3].mlp.c_proj.weight.data *= -9
        return student

    def taps(self, teacher_config, plan):
        return {
            "taps": (Tap(teacher="transformer.h.99", student="lm_head"),),
            "no attention": (Tap(teacher="lm_head", student="lm_head", kind="attention"),),
            "tap shapes": (Tap(teacher="transformer.h.0", student="transformer.h.0.mlp.c_fc"),),
        }.get(self.how, ())


@pytest.mark.parametrize(
    ("how", "check", "words"),
    [
        ("wrong size", "the size meets the budget", "promises"),
        ("no nearest", "plans and compresses", "names no nearest fraction"),
        ("refuses its own", "plans and compresses", "refuses 0.7 of gpt2 and then 0.7000, which it named itself"),
        ("not full", EXACT, "differ from the teacher's"),
        ("worse when larger", SINGLE_SIZE, "the error grows from"),
        ("crash", "plans and compresses", "test_methods_conformance.py"),
        ("changes teacher", "the teacher is left alone", "compress changes the teacher's"),
        ("random", "the same seed gives the same bits", "differs between two runs"),
        ("dead factor", "gradients are finite and reach every factor", "no gradient reaches"),
        ("unties", "tied embeddings stay tied", "(lm_head) are untied, should be tied"),
        ("taps", "taps resolve", "'transformer.h.99', which the teacher"),
        ("no attention", "taps resolve", "no attention module of the teacher"),
        ("tap shapes", "taps resolve", "(4, 32, 48) with"),
    ],
)
def test_the_kit_finds_what_is_planted(how, check, words):
    found = failures(Sloppy(how=how))
    assert words in found[check]
    assert "\n" not in found[check]


def test_steps_that_do_not_lower_the_loss_are_found(monkeypatch):
    tested = bench.prepare(Svd(), tiny.find("gpt2"))
    bench.fill(tested, (0.7,))
    assert list(training.steps_lower_loss(tested)) == []
    monkeypatch.setattr(training, "STEPS", 1)
    assert "at params=0.7 1 steps take the loss from" in next(training.steps_lower_loss(tested))


def test_declaring_that_a_full_budget_is_inexact_is_not_applicable():
    class Inexact(Identity):
        exact_at_full = False

        def compress(self, teacher, plan, *, seed, statistics):
            return from_teacher(teacher, plan)

    findings = conformance.check_method(Inexact(), fast=True)
    reasons = {f.check: f.message for f in findings if f.status == "n/a"}
    assert reasons[EXACT] == "declared exact_at_full = False"


@dataclass(frozen=True, kw_only=True)
class FewSizes(Svd):
    """Reaches these fractions of the teacher and no others."""

    sizes: tuple[float, ...]

    def plan(self, teacher_config, budget):
        near = min(self.sizes, key=lambda each: abs(each - budget.value))
        if abs(near - budget.value) > 0.01:
            return Refusal(reason="few sizes", nearest=near)
        return super().plan(teacher_config, budget)


@pytest.mark.parametrize(
    ("sizes", "reached"), [((0.75, 1.0), [0.75, 1.0]), ((0.5, 0.97, 1.0), [0.5, 1.0]), ((0.9,), [0.9]), ((1.0,), [1.0])]
)
def test_refusals_are_followed_to_different_budgets(sizes, reached):
    method, source = FewSizes(sizes=sizes), tiny.find("gpt2")
    plans = bench.plans(method, source, conformance.FAST_BUDGETS)
    assert sorted(budget.value for budget, _ in plans) == reached


class Untied(Method):
    """The teacher with an output matrix of its own."""

    def plan(self, teacher_config, budget):
        dense = architecture(teacher_config)
        untied = Plan(size=student_size(dense, {}, untied=True), config_changes={"tie_word_embeddings": False})
        return accept(budget, untied, dense.num_params, "one size")

    def compress(self, teacher, plan, *, seed, statistics):
        return from_teacher(teacher, plan)


def test_a_size_above_the_teachers_is_asked_for_in_parameters():
    findings = conformance.check_method(Untied(), fast=True, teachers=["gpt2"])
    assert [f.message for f in findings if f.status == "failed"] == []
    assert [f.message for f in findings if f.check == SINGLE_SIZE] == [
        "one size is all it reaches, at params=0.123936M"
    ]


def test_presets_are_checked_on_a_teacher_of_their_width(monkeypatch):
    seen = []
    monkeypatch.setattr(kit, "_check_on", lambda method, source, *_: seen.append((method.scales, source)) or [])
    monkeypatch.setattr(tiny, "find", lambda label: label)
    conformance.check_method(Kronecker(preset="krony-81m"), fast=True)
    assert seen == [(True, tiny.WIDE)]


PRESETS = [(name, preset) for name in registry.names() for preset in registry.load(name).presets]


@pytest.mark.slow
@pytest.mark.timeout(900)  # tq looks for permutations of 3072 rows
@pytest.mark.parametrize(("name", "preset"), [each for each in PRESETS if each[0] != "distilgpt2"])
def test_presets_conform(name, preset):
    conformance.assert_conforms(decode(name, {"preset": preset}))


def test_a_real_model_can_be_the_teacher(tmp_path):
    save(tiny.teacher("llama"), tmp_path / "real")
    findings = conformance.check("svd", fast=True, teachers=[str(tmp_path / "real")])
    assert {(f.teacher, f.status) for f in findings} == {("real", "passed")}


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("lama", "teacher 'lama' is no directory and no tiny teacher; did you mean 'llama'?"),
        (".", "teacher '.' holds no config.json; known: gpt2, gpt2-untied, gpt2-wide, llama, llama-untied"),
    ],
)
def test_another_teacher_is_refused_in_one_line(where, message):
    with pytest.raises(MethodError) as error:
        conformance.check("svd", fast=True, teachers=["gpt2", where])
    assert str(error.value) == message


def test_a_third_partys_suite_needs_one_line():
    conformance.assert_conforms("svd", teachers=["gpt2"])
    conformance.assert_conforms(Svd(layers="odd"), teachers=["llama"])
    with pytest.raises(AssertionError, match=r"tied embeddings stay tied \[gpt2\]: at params=0.7 .* are untied"):
        conformance.assert_conforms(Sloppy(how="unties"), teachers=["gpt2"])
