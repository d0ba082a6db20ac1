"""The kit catches what is planted in a method or in a layer, by the name of the matter."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch.nn import functional as F

from methods import conformance
from methods.interface import Budget, Phase, Plan
from methods.layers.low_rank import LowRankLinear
from methods.svd import Svd

SMALLEST = "transformer.h.0.attn.c_attn"


@dataclass(frozen=True, kw_only=True)
class Mutant(Svd):
    """Truncated SVD in layers of the kind `layer`, wrong in the way that `how` names."""

    layer: str = "low_rank"
    how: str = ""

    @property
    def needs(self):
        return frozenset({"unread statistic": ["abs_mean"]}.get(self.how, []))

    @property
    def stochastic(self):
        return self.how == "declares a seed"

    def plan(self, teacher_config, budget):
        if self.how == "ignores the unit":
            budget = Budget(value=budget.value)
        plan = super().plan(teacher_config, budget)
        surgery = {path: {**spec, "type": self.layer} for path, spec in plan.surgery.items()}
        trained = {"trains nothing there is": ("middle",), "trains left": ("left",)}.get(self.how, ())
        return replace(plan, surgery=surgery, trained=trained if surgery else ())

    def refine(self, teacher, plan, statistics):
        if self.how == "grows in refine" and plan.surgery:
            surgery = {path: {**spec, "rank": spec["rank"] + 2} for path, spec in plan.surgery.items()}
            entries = sum(2 * sum(teacher.get_submodule(path).weight.shape) for path in surgery)
            return replace(plan, surgery=surgery, size=plan.size + entries)
        return plan

    def phases(self, teacher_config, plan):
        first = dict(list(plan.surgery.items())[:4])
        early = Plan(size=self.size_of(teacher_config, first), surgery=first)
        if self.how == "phases end elsewhere":
            return [Phase(plan=plan, share=0.5), Phase(plan=early, share=0.5)]
        if self.how == "phases train twice":
            return [Phase(plan=early), Phase(plan=plan)]
        if self.how == "phases restore":
            other = dict(list(plan.surgery.items())[4:])
            other_plan = Plan(size=self.size_of(teacher_config, other), surgery=other)
            return [Phase(plan=early, share=0.3), Phase(plan=other_plan, share=0.3), Phase(plan=plan, share=0.4)]
        if self.how in ("phases recompute", "two phases"):
            return [Phase(plan=early, share=0.5), Phase(plan=plan, share=0.5)]
        return super().phases(teacher_config, plan)

    @staticmethod
    def size_of(config, surgery):
        from methods.families import architecture
        from methods.planning import student_size

        return student_size(architecture(config), surgery)

    def compress(self, teacher, plan, *, seed, statistics):
        if self.how == "undeclared statistic":
            statistics["gram"]
        student = super().compress(teacher, plan, seed=seed, statistics={})
        layers = [student.get_submodule(path) for path in plan.surgery]
        if layers:
            self.plant(teacher, student, layers, seed)
        return student

    def plant(self, teacher, student, layers, seed):
        if self.how == "drops a bias":
            layers[0].bias = None
        if self.how == "zeroes a bias":
            layers[0].bias.data.zero_()
        if self.how == "wrong transpose":
            layers[1].left.data, layers[1].right.data = layers[1].right.data.T, layers[1].left.data.T
        if self.how == "reads the seed":
            layers[0].left.data += 1e-3 * torch.rand((), generator=torch.Generator().manual_seed(seed))
        if self.how == "draws globally":
            layers[0].left.data += 1e-3 * torch.rand(())
        if self.how == "shares the teacher's memory":
            student.transformer.wpe.weight = teacher.transformer.wpe.weight
        if self.how == "trains left":
            layers[0].right.requires_grad_(True)
        if self.how == "freezes silently":
            layers[0].bias.requires_grad_(False)
        if self.how == "phases recompute":
            layers[0].left.data += float(len(layers))


class Transposed(LowRankLinear, kind="mutant.transposed"):
    """Wrong where it can be: in square layers."""

    def materialise(self):
        weight = super().materialise()
        return weight.T if weight.shape[0] == weight.shape[1] else weight


class WrongForMany(LowRankLinear, kind="mutant.wrong_for_many"):
    def forward(self, x):
        y = super().forward(x)
        return y if y[..., 0].numel() < 200 else y - self.bias


class Detached(LowRankLinear, kind="mutant.detached"):
    def forward(self, x):
        return F.linear(F.linear(x, self.right.detach()), self.left, self.bias)


class HalfGradient(LowRankLinear, kind="mutant.half_gradient"):
    def forward(self, x):
        half = (self.right + self.right.detach()) / 2
        return F.linear(F.linear(x, half), self.left, self.bias)


class Miscounted(LowRankLinear, kind="mutant.miscounted"):
    @classmethod
    def count(cls, spec, out_features, in_features):
        return super().count(spec, out_features, in_features) + 1


class Overpriced(LowRankLinear, kind="mutant.overpriced"):
    @property
    def macs_per_token(self):
        return self.out_features * self.in_features


class Forgetful(LowRankLinear, kind="mutant.forgetful"):
    """Half of the product lies in an attribute that no file holds."""

    def forward(self, x):
        if not hasattr(self, "hidden_weight"):
            self.hidden_weight = self.left.detach().clone()
            if not self.left.any():
                self.hidden_weight += 1
            self.left.data.zero_()
        return F.linear(F.linear(x, self.right), self.left + self.hidden_weight, self.bias)

    def materialise(self):
        return (self.left + getattr(self, "hidden_weight", 0)) @ self.right


class Uncopied(LowRankLinear, kind="mutant.uncopied"):
    def __deepcopy__(self, memo):
        return self


class Float32Only(LowRankLinear, kind="mutant.float32_only"):
    """Adds a float32 product to what autocast made bfloat16, in place."""

    def forward(self, x):
        y = F.linear(x, self.right)
        return F.linear(
            torch.scatter_add(y, -1, torch.zeros_like(x[..., :1], dtype=torch.long), 0 * x[..., :1]),
            self.left,
            self.bias,
        )


class Compiled(LowRankLinear, kind="mutant.compiled"):
    def forward(self, x):
        y = super().forward(x)
        return 1.01 * y if torch.compiler.is_compiling() else y


def findings(method, *, teacher="gpt2", fast=True):
    found = conformance.check_method(method, fast=fast, teachers=[teacher])
    return {f.check: f.message for f in found if f.status == "failed"}


@pytest.mark.parametrize("how", ["", "two phases"])
def test_what_is_not_mutated_conforms(how):
    assert findings(Mutant(how=how)) == {}


@pytest.mark.parametrize(
    ("how", "check", "words"),
    [
        ("drops a bias", "biases are kept", f"{SMALLEST} at params=0.7 has no bias, the teacher's has"),
        ("zeroes a bias", "biases are kept", f"{SMALLEST}.bias at params=0.7 is not the teacher's"),
        (
            "wrong transpose",
            "replaced layers resemble the teacher's",
            "transformer.h.0.attn.c_proj at params=0.7 is off",
        ),
        ("draws globally", "the same seed gives the same bits", f"{SMALLEST}.left differs between two runs"),
        ("reads the seed", "the same seed gives the same bits", f"{SMALLEST}.left depends on the seed"),
        ("declares a seed", "the same seed gives the same bits", "seeds 0 and 1 give the same student"),
        ("undeclared statistic", "plans and compresses", "reads the statistic 'gram', but `needs` names nothing"),
        ("unread statistic", "the method reads the statistics it declares", "`needs` names 'abs_mean'"),
        ("shares the teacher's memory", "the teacher is left alone", "transformer.wpe.weight at params=0.7 shares"),
        ("grows in refine", "refining keeps the size", "at params=0.7 refine turns"),
        ("phases end elsewhere", "phases lead to the plan", "the last phase's plan is not the plan"),
        ("phases train twice", "phases lead to the plan", "the shares of 2 phases sum to 2, should be 1"),
        ("phases restore", "phases lead to the plan", "phase 2 restores transformer.h.0.attn.c_attn"),
        ("phases recompute", "phases lead to the plan", f"phase 2 recomputes {SMALLEST}, which phase 1"),
        ("trains nothing there is", "what is frozen stays frozen", "plan.trained names 'middle', which no parameter"),
        ("trains left", "what is frozen stays frozen", f"a gradient reaches {SMALLEST}.right"),
        ("freezes silently", "what is frozen stays frozen", f"{SMALLEST}.bias requires no gradient"),
    ],
)
def test_a_mutated_method_is_caught(how, check, words):
    found = findings(Mutant(how=how))
    assert words in found[check]
    assert "\n" not in found[check]


@pytest.mark.parametrize(
    ("layer", "check", "words"),
    [
        (
            "transposed",
            "each layer equals its dense weight, forward and backward",
            "c_proj.forward of 1 tokens differs",
        ),
        ("wrong_for_many", "each layer equals its dense weight, forward and backward", "of 256 tokens differs by"),
        ("detached", "gradients are finite and reach every factor", f"no gradient reaches {SMALLEST}.right"),
        (
            "half_gradient",
            "each layer equals its dense weight, forward and backward",
            "the gradient of right in forward",
        ),
        ("miscounted", "counts equal the measured ones", f"{SMALLEST} at params=0.7 counts"),
        ("overpriced", "counts equal the measured ones", f"{SMALLEST} says 6,912 multiply-adds per token, measured"),
        ("forgetful", "save and load are exact", "the loaded student computes other logits"),
        ("forgetful", "the state dict round trip is exact", "filled from the state dict computes other logits"),
        ("uncopied", "a deep copy is equal", f"a deep copy shares {SMALLEST}"),
        ("float32_only", "bfloat16 autocast is near float32", "RuntimeError"),
    ],
)
def test_a_mutated_layer_is_caught(layer, check, words):
    found = findings(Mutant(layer=f"mutant.{layer}"))
    assert words in found[check]
    assert "\n" not in found[check]


@pytest.mark.slow
def test_a_layer_that_compiles_to_something_else_is_caught():
    found = findings(Mutant(layer="mutant.compiled"), fast=False)
    assert set(found) == {"torch.compile changes nothing"}


def test_a_method_that_takes_multiply_adds_for_parameters_is_caught():
    found = findings(Mutant(how="ignores the unit"), teacher="gpt2-untied")
    assert set(found) == {"budgets in other units are met"}
    assert "at macs=0.5 the student has" in found["budgets in other units are met"]
