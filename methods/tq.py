"""TQCompressor: Kronecker products between permutations that are found first, distilled part by part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from methods.families import architecture
from methods.interface import Budget, Method, MethodError, Phase, Plan, Preset, Refusal, Statistics
from methods.kronecker_planning import Form, Head, Shapes, check_layout, laid_out, plan_layout
from methods.layers.kronecker import KroneckerEmbedding
from methods.layers.permuted_kronecker import PermutedKroneckerLinear
from methods.recipe import Losses, Recipe
from methods.scope import Layers, Matrices, select

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel

_SPLITS: dict[int, list[int]] = {2: [2], 4: [2, 2], 8: [2, 2, 2], 16: [2, 2, 2, 2]}
"""How many times smaller the embedding gets -> the factors of 2 that are split off one after the other."""


@dataclass(frozen=True, kw_only=True)
class TQCompressor(Method):
    """TQCompressor: W ~ P^T (sum of A_k (x) B_k) Q^T, permutations found before the fit.  arXiv 2401.16367.

    P and Q reorder rows and columns so that what a Kronecker product can share stands together; they are index lists
    and add no parameters. The embedding is split by 2, and its large factor by 2 again. Compression and distillation
    alternate: the embedding 2x, the matrices, the embedding 4x (`phases`).

    Not known, and taken instead: how the permutations are found (the rounds of `permutations.kronecker_permutations`,
    which never raise the error); the losses (cross-entropy and logit distillation, no intermediate ones); each phase's
    share of the tokens (equal). The embedding is not permuted: its rows are tokens, and a permutation of its columns
    would have to be undone at every lookup.

    The released configuration names (m1, n1, m2, n2) for weights stored in x out: 4 terms of (384, 768) (x) (2, 4) for
    `c_fc`, 768 -> 3072, whose 768 rows are the inputs. Here W is out x in, hence A 768 x 384 and B 4 x 2 for `up`; A
    384 x 768 and B 2 x 4 for `down`.

    Without a preset or `shapes` a budget is solved for, by the sequence and the rule of `kronecker`
    (`kronecker_planning`), with permuted layers and an embedding that is split by 2 at each step.
    """

    presets: ClassVar[Mapping[str, Preset]] = {
        "tq-81m": Preset(
            fields={
                "layers": "odd",
                "matrices": "ffn",
                "embedding": True,
                "head": "untied",
                "terms": 4,
                "shapes": {"up": (768, 384), "down": (384, 768)},
            },
            counts={"unique": 119_933_764, "without_output_matrix": 81_336_388},
            source="config/config.yaml of the released TQCompressedGPT-2; computed",
        )
    }

    preset: Literal["tq-81m"] | None = None
    """The released configuration, for GPT-2 small."""
    layers: Layers = "all"
    """Blocks that may be factorised, counted from 0; of `all` the odd ones go first."""
    matrices: Matrices = "ffn"
    """Matrices in scope within a block; the released model leaves attention dense."""
    embedding: bool | None = None
    """Factorise the token embedding. None: yes, unless the budget can only be met without; with `shapes`, only for an
    untied head."""
    head: Head | None = None
    """`tied`, or left out: the output matrix stays as it is. `untied`: it becomes a dense matrix of its own,
    the teacher's embedding, as the paper counts; it needs a factorised embedding."""
    shapes: Shapes | None = None
    """A's rows and columns by role, out x in. Only these roles are factorised, and the embedding, if asked for, 4x.
    None: solved for the budget."""
    terms: int = 4
    """Kronecker products that are summed for each matrix; 4 as released."""
    rounds: int = 2
    """Rounds of the search for permutations. On a matrix of SmolLM2 (FFN, half its size) 2 rounds take the relative
    error from 0.706 to 0.613, 12 rounds to 0.612 in more than twice the time."""
    max_macs: float = 0.8
    """The solver takes no shape with more multiply-adds than this fraction of the dense matrix's. The released shapes
    take 1.01 of them: as many as the dense matrices."""

    def __post_init__(self) -> None:
        check_layout(self)
        if self.rounds < 1:
            raise MethodError(f"rounds: {self.rounds} finds no permutation; nearest: 1, or the method kronecker")

    @property
    def exact_at_full(self) -> bool:
        """Given shapes have a size of their own."""
        return self.shapes is None

    def plan(self, teacher_config: PretrainedConfig, budget: Budget | None) -> Plan | Refusal:
        dense = architecture(teacher_config)
        scope = select(dense, self.layers, self.matrices)
        form = Form(kind=PermutedKroneckerLinear.kind, terms=self.terms)
        return plan_layout(self, dense, scope, form, budget, splits=_SPLITS, given=4)

    def phases(self, teacher_config: PretrainedConfig, plan: Plan) -> list[Phase]:
        """The embedding split once, then the matrices, then the embedding's further splits, on equal shares of tokens.

        A step that the plan leaves out is left out.
        """
        dense = architecture(teacher_config)
        matrices = {path: dict(spec) for path, spec in plan.surgery.items() if path != dense.embedding}
        factors = list(plan.surgery.get(dense.embedding, {}).get("factors", ()))
        split_once = {dense.embedding: {"type": KroneckerEmbedding.kind, "factors": factors[-1:]}} if factors else {}
        surgeries = [split_once] if factors else []
        if matrices and len(factors) > 1:
            surgeries.append({**split_once, **matrices})
        before = [laid_out(dense, each, self.head) for each in surgeries if each != plan.surgery]
        return [Phase(plan=each, share=1 / (len(before) + 1)) for each in (*before, plan)]

    def compress(self, teacher: PreTrainedModel, plan: Plan, *, seed: int, statistics: Statistics) -> PreTrainedModel:
        from methods.student import from_teacher

        return from_teacher(teacher, plan, self._factors)

    def _factors(self, path: str, weight: Tensor, spec: Mapping[str, Any]) -> dict[str, Tensor]:
        from methods.kronecker_factors import embedding_factors
        from methods.permuted_factors import permuted_factors

        if spec["type"] == KroneckerEmbedding.kind:
            return embedding_factors(weight, spec["factors"])
        return permuted_factors(weight, spec, self.rounds)

    def recipe(self) -> Recipe:
        """Distillation on 3.1 % of OpenWebText, which is known; the rest is not, and is ours.

        Taken: 9.0 billion tokens as OpenWebText, 131,072 tokens a step, sequences of 1,024, 2.5e-4 with a cosine, CE
        and KL in equal parts at T = 2. All phases together take these tokens.
        """
        return Recipe(
            tokens=279_000_000,
            batch_tokens=128 * 1024,
            sequence_length=1024,
            learning_rate=2.5e-4,
            losses=Losses(ce=0.5, kd=0.5, temperature=2.0),
        )
