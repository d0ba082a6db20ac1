"""Every built-in passes the kit, and the kit finds what is planted."""

from dataclasses import dataclass

import pytest
import torch

from methods import conformance, registry, tiny
from methods.identity import Identity
from methods.interface import Budget, Plan, Refusal, Tap
from methods.student import from_teacher
from methods.svd import Svd

REFUSALS = {("distilgpt2", 0.7), ("distilgpt2", 0.85)}


def failures(method):
    return {f.check: f.message for f in conformance.check_method(method, fast=True) if f.status == "failed"}


@pytest.mark.parametrize("name", registry.names())
def test_built_ins_conform(name):
    findings = conformance.check(name, fast=True)
    assert [f for f in findings if f.status == "failed"] == []
    assert {f.teacher for f in findings} == set(conformance.FAST_TEACHERS)
    declared = {"the error falls as the budget grows"} if name == "identity" else set()
    assert {f.check for f in findings if f.status == "n/a"} == declared


@pytest.mark.slow
@pytest.mark.parametrize("name", registry.names())
def test_built_ins_conform_in_full(name):
    assert [f for f in conformance.check(name) if f.status == "failed"] == []


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
            student.lm_head.weight = torch.nn.Parameter(student.lm_head.weight.detach().clone())
        return student

    def taps(self, teacher_config, plan):
        return (Tap(teacher="transformer.h.99", student="lm_head"),) if self.how == "taps" else ()


@pytest.mark.parametrize(
    ("how", "check", "words"),
    [
        ("wrong size", "the size meets the budget", "promises"),
        ("no nearest", "plans and compresses", "names no nearest fraction"),
        ("not full", "a full budget reproduces the teacher", "differ from the teacher's"),
        ("crash", "plans and compresses", "test_methods_conformance.py"),
        ("changes teacher", "the teacher is left alone", "compress changes the teacher's"),
        ("random", "the same seed gives the same bits", "differs between two runs"),
        ("dead factor", "gradients are finite and reach every factor", "no gradient reaches"),
        ("unties", "tied embeddings stay tied", "are untied, should be tied"),
        ("taps", "taps resolve", "'transformer.h.99', which the teacher"),
    ],
)
def test_the_kit_finds_what_is_planted(how, check, words):
    found = failures(Sloppy(how=how))
    assert words in found[check]
    assert "\n" not in found[check]


def test_declaring_that_a_full_budget_is_inexact_is_not_applicable():
    class Inexact(Identity):
        exact_at_full = False

        def compress(self, teacher, plan, *, seed, statistics):
            return from_teacher(teacher, plan)

    findings = conformance.check_method(Inexact(), fast=True)
    reasons = {f.check: f.message for f in findings if f.status == "n/a"}
    assert reasons["a full budget reproduces the teacher"] == "declared exact_at_full = False"
