"""KnGPT2 and Krony-PT: Kronecker products in place of the embedding and of the blocks' matrices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from methods.families import Matrix, architecture
from methods.interface import Budget, Method, MethodError, Plan, Preset, Refusal, Statistics, Tap
from methods.kronecker_planning import STEPS, Form, Head, Shapes, check_layout, plan_layout
from methods.layers.kronecker import KroneckerEmbedding
from methods.recipe import Losses, Recipe
from methods.scope import Layers, Matrices, select

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel

Initialisation = Literal["van_loan", "pruning"]

_OPENWEBTEXT = 9_000_000_000
"""Tokens of an epoch, as taken here."""


@dataclass(frozen=True, kw_only=True)
class Kronecker(Method):
    """KnGPT2 and Krony-PT: W ~ a sum of s_k A_k (x) B_k, the nearest Kronecker products.  2110.08152, 2412.12351.

    KnGPT2 (Edalati et al.): one product per matrix, the embedding and the odd layers at factor 2, query, key and value
    each their own product. Not known: whether the attention's output is factorised (it is here, which is nearer to the
    paper's 83M; `attention_output: false` is the other reading), whether odd counts from 0 (as TQCompressor, which
    copies the scheme), and the shapes: here B has 2 entries along W's longer side, a column for a square matrix.

    Krony-PT: the two FFN matrices of all layers, each term with a learned scalar s_k (`scales`), weight tying kept. Its
    adaptive normalisation starts each s_k at ||W||_F / ||W_hat||_F (`normalise`). Its pruning start (`initialisation`)
    takes A = every second row of W and B = [1, 0.1]^T. W is out x in in both families, so GPT-2's matrices, stored
    in x out, are transposed first; the rule follows B: for up and gate (B 2 x 1) A has every second row, for down
    (B 1 x 2) every second column, so that in both every second hidden unit of the FFN is kept.

    Without a preset or `shapes` a budget is solved for. The layout is a prefix of one fixed sequence that scales
    KnGPT2's: for r of 2, 4, 8, 16 in turn the embedding r times smaller, then the odd blocks from the first to the
    last, matrix by matrix, then the even ones. The prefix nearest to the budget is taken. The shape that makes a matrix
    r times smaller is chosen by attainable rank and multiply-adds: `kronecker_planning.left_shape` has the rule.
    """

    presets: ClassVar[Mapping[str, Preset]] = {
        "kngpt2": Preset(
            fields={
                "layers": "odd",
                "embedding": True,
                "head": "untied",
                "shapes": {"qkv": (384, 768), "o": (384, 768), "up": (1536, 768), "down": (768, 1536)},
            },
            counts={"unique": 122_504_906, "without_output_matrix": 83_907_530},
            source="arXiv 2110.08152, section 4; computed, with the attention output",
        ),
        "krony-81m": Preset(
            fields={"matrices": "ffn", "scales": True, "shapes": {"up": (768, 768), "down": (768, 768)}},
            counts={"unique": 81_972_600, "scales_folded": 81_972_576},
            source="arXiv 2412.12351 v2, Table I",
        ),
        "krony-96m": Preset(
            fields={"matrices": "ffn", "scales": True, "shapes": {"up": (1536, 768), "down": (768, 1536)}},
            counts={"unique": 96_128_328, "scales_folded": 96_128_304},
            source="arXiv 2412.12351 v2, Table I",
        ),
    }

    preset: Literal["kngpt2", "krony-81m", "krony-96m"] | None = None
    """A published configuration of GPT-2 small; it also chooses the recipe."""
    layers: Layers = "all"
    """Blocks that may be factorised, counted from 0; of `all` the odd ones go first."""
    matrices: Matrices = "all"
    """Matrices in scope within a block."""
    attention_output: bool = True
    """Factorise the attention's output matrix too; false leaves it dense, also where `shapes` names it."""
    embedding: bool | None = None
    """Factorise the token embedding. None: yes, unless the budget can only be met without; with `shapes`,
    only for an untied head."""
    head: Head | None = None
    """`tied`, or left out: the output matrix stays as it is. `untied`: it becomes a dense matrix of its own,
    the teacher's embedding, as KnGPT2 counts; it needs a factorised embedding."""
    shapes: Shapes | None = None
    """A's rows and columns by role, out x in, for one of GPT-2's three parts of `qkv`: `{up: [1536, 768]}`. Only these
    roles are factorised, and the embedding, if asked for, at factor 2. None: solved for the budget."""
    terms: int = 1
    """Kronecker products that are summed for each matrix."""
    scales: bool = False
    """Give each term a learned scalar."""
    normalise: bool = False
    """Start the scales such that each matrix keeps its Frobenius norm; needs `scales`."""
    initialisation: Initialisation = "van_loan"
    """`van_loan`: the nearest sum of products. `pruning`: every second row, for shapes that leave B two entries."""
    max_macs: float = 0.8
    """The solver takes no shape with more multiply-adds than this fraction of the dense matrix's. At 512 tokens layers
    of 0.5 were measured at 0.5 to 0.9 of the dense one's time, so that 0.8 is about where none is slower than dense."""

    def __post_init__(self) -> None:
        check_layout(self)
        preset = self.presets.get(self.preset or "")
        brought = preset.fields if preset else {}
        shapes, scales = self.shapes or brought.get("shapes"), self.scales or brought.get("scales")
        if self.normalise and not scales:
            raise MethodError("normalise: sets the start of the scales; nearest: scales: true")
        if self.initialisation == "pruning" and shapes is None:
            raise MethodError("initialisation: pruning needs shapes that leave B two entries; nearest: van_loan")
        if self.initialisation == "pruning" and self.terms > 1:
            raise MethodError(f"initialisation: pruning is one product, terms is {self.terms}; nearest: terms: 1")

    @property
    def exact_at_full(self) -> bool:
        """Given shapes have a size of their own."""
        return self.shapes is None

    def plan(self, teacher_config: PretrainedConfig, budget: Budget | None) -> Plan | Refusal:
        dense = architecture(teacher_config)
        scope = self._scope(select(dense, self.layers, self.matrices))
        form = Form(terms=self.terms, scaled=self.scales)
        return plan_layout(self, dense, scope, form, budget, splits={step: [step] for step in STEPS}, given=2)

    def _scope(self, matrices: list[Matrix]) -> list[Matrix]:
        return [each for each in matrices if self.attention_output or each.role != "o"]

    def compress(self, teacher: PreTrainedModel, plan: Plan, *, seed: int, statistics: Statistics) -> PreTrainedModel:
        from methods.student import from_teacher

        return from_teacher(teacher, plan, self._factors)

    def _factors(self, path: str, weight: Tensor, spec: Mapping[str, Any]) -> dict[str, Tensor]:
        from methods import kronecker_factors as factors

        if spec["type"] == KroneckerEmbedding.kind:
            return factors.embedding_factors(weight, spec["factors"])
        fit = factors.pruning_factors if self.initialisation == "pruning" else factors.matrix_factors
        found = fit(weight, spec)
        return factors.normalised(found, weight) if self.normalise else found

    def taps(self, teacher_config: PretrainedConfig, plan: Plan) -> list[Tap]:
        """MSE of the embeddings, KL of the attention maps and MSE of the blocks' outputs, layer by layer, 1 to 1.

        Krony-PT compares nothing.
        """
        if self._is_krony():
            return []
        dense = architecture(teacher_config)
        same = [Tap(teacher=path, student=path) for path in (dense.embedding, *dense.blocks)]
        maps = [Tap(teacher=path, student=path, kind="attention", loss="kl") for path in dense.attentions]
        return [same[0], *maps, *same[1:]]

    def recipe(self) -> Recipe:
        """Krony-PT's with a preset of its name, else KnGPT2's."""
        return _krony_recipe() if self._is_krony() else _kngpt2_recipe()

    def _is_krony(self) -> bool:
        return self.preset in ("krony-81m", "krony-96m")


def _kngpt2_recipe() -> Recipe:
    """One epoch over 10 % of OpenWebText with CE and the three intermediate losses, no logit distillation.

    Not known: learning rate, schedule, batch, sequence length and the four weights of the losses; 2.5e-4 with a cosine,
    131,072 tokens, 1,024 and 1 are taken. OpenWebText is taken as 9.0 billion tokens.
    """
    return Recipe(
        tokens=_OPENWEBTEXT // 10,
        batch_tokens=128 * 1024,
        sequence_length=1024,
        learning_rate=2.5e-4,
        losses=Losses(ce=1.0, taps=1.0),
    )


def _krony_recipe() -> Recipe:
    """Three epochs of OpenWebText at 120 x 1,024 tokens a step, cosine from 6e-5 to 6e-6, cross-entropy alone.

    Its warm-up is 500 to 1,500 steps: 1,000 are taken. OpenWebText is taken as 9.0 billion tokens. Left out: the epoch
    at about 327,000 tokens a step and a constant 6e-6 that follows. Weight decay and betas are not known: ours.
    """
    batch = 120 * 1024
    tokens = 3 * _OPENWEBTEXT
    return Recipe(
        tokens=tokens,
        batch_tokens=batch,
        sequence_length=1024,
        learning_rate=6e-5,
        warmup_fraction=1000 * batch / tokens,
        final_fraction=0.1,
        losses=Losses(ce=1.0),
    )
