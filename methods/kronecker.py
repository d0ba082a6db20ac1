"""KnGPT2: Kronecker products in place of the embedding and of the blocks' matrices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from methods.families import Architecture, Matrix, architecture
from methods.interface import Budget, Method, Plan, Refusal, Statistics, Tap
from methods.layers.factorised import count
from methods.layers.kronecker import KroneckerEmbedding, KroneckerLinear
from methods.planning import student_size
from methods.recipe import Losses, Recipe
from methods.scope import Layers, in_layers

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel

_FACTORS = (2, 4, 8, 16)

Surgery = dict[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Kronecker(Method):
    """KnGPT2: W ~ A (x) B, the nearest Kronecker product.  Edalati et al., arXiv 2110.08152, sections 3 and 4.

    The paper's layout is the embedding and the odd layers at factor 2, query, key and value each their own product. It
    is not known whether the attention's output is factorised, whether odd counts from 0, and which shapes are taken.
    Here B has f entries, along W's longer side (a column on a tie), which leaves W the highest possible rank.

    Any other budget is a prefix of one fixed sequence: for f of 2, 4, 8, 16 in turn, the embedding, then the odd blocks
    from the first to the last, matrix by matrix, then the even ones. The prefix nearest to the budget is taken.
    """

    layers: Layers = "all"
    """Blocks that may be factorised, counted from 0; of `all` the odd ones go first."""
    attention_output: bool = True
    """Factorise the attention's output matrix too."""
    embedding: bool | None = None
    """Factorise the token embedding. None: yes, unless the budget can only be met without."""

    def plan(self, teacher_config: PretrainedConfig, budget: Budget | None) -> Plan | Refusal:
        assert budget is not None, "kronecker is budgeted"
        dense = architecture(teacher_config)
        target = budget.target(dense.num_params)
        choices = (True, False) if self.embedding is None else (self.embedding,)
        surgeries = [_nearest_prefix(dense, list(self._moves(dense, choice)), target) for choice in choices]
        sizes = [student_size(dense, surgery) for surgery in surgeries]
        for size, surgery in zip(sizes, surgeries, strict=True):
            if budget.met_by(size, dense.num_params):
                return Plan(size=size, surgery=surgery)
        nearest = min(sizes, key=lambda size: abs(size - target))
        reason = f"factors go in steps from 2 to {_FACTORS[-1]} over the matrices in scope"
        return Refusal(reason=reason, nearest=nearest / dense.num_params)

    def _moves(self, dense: Architecture, embedding: bool) -> Iterator[tuple[str, dict[str, Any]]]:
        """Module path and specification, in the order in which a shrinking budget takes them."""
        scope = [each for each in dense.matrices if self.attention_output or each.role != "o"]
        scope = [each for each in scope if in_layers(each, self.layers)]
        for factor in _FACTORS:
            if embedding and dense.width % factor == 0:
                yield dense.embedding, {"type": KroneckerEmbedding.kind, "factors": [factor]}
            for parity in (1, 0):
                for each in scope:
                    left = left_shape(each, factor)
                    if each.block % 2 == parity and left is not None:
                        yield each.path, {"type": KroneckerLinear.kind, "left": list(left), "splits": each.splits}

    def compress(self, teacher: PreTrainedModel, plan: Plan, *, seed: int, statistics: Statistics) -> PreTrainedModel:
        from methods.student import from_teacher

        return from_teacher(teacher, plan, _factors)

    def taps(self, teacher_config: PretrainedConfig, plan: Plan) -> list[Tap]:
        """MSE of the embeddings, KL of the attention maps and MSE of the blocks' outputs, layer by layer, 1 to 1."""
        dense = architecture(teacher_config)
        same = [Tap(teacher=path, student=path) for path in (dense.embedding, *dense.blocks)]
        maps = [Tap(teacher=path, student=path, kind="attention", loss="kl") for path in dense.attentions]
        return [same[0], *maps, *same[1:]]

    def recipe(self) -> Recipe:
        """One epoch over 10 % of OpenWebText with CE and the three intermediate losses, no logit distillation.

        Not known: learning rate, schedule, batch, sequence length and the four weights of the losses; 2.5e-4 with a
        cosine, 131,072 tokens, 1,024 and 1 are taken. OpenWebText is taken as 9.0 billion tokens.
        """
        return Recipe(
            tokens=900_000_000,
            batch_tokens=128 * 1024,
            sequence_length=1024,
            learning_rate=2.5e-4,
            losses=Losses(ce=1.0, taps=1.0),
        )


def left_shape(matrix: Matrix, factor: int) -> tuple[int, int] | None:
    """Rows and columns of A for one split of `matrix` when B has `factor` entries; None when it does not divide."""
    rows, columns = matrix.out_features // matrix.splits, matrix.in_features
    if rows % factor == 0 and (rows > columns or columns % factor):
        return rows // factor, columns
    if columns % factor == 0:
        return rows, columns // factor
    return None


def _nearest_prefix(dense: Architecture, moves: list[tuple[str, dict[str, Any]]], target: int) -> Surgery:
    """The surgery after the first moves, as many as bring the size nearest to `target`."""
    shapes = {each.path: (each.out_features, each.in_features) for each in dense.matrices}
    shapes[dense.embedding] = (dense.vocab, dense.width)
    held = {path: rows * columns for path, (rows, columns) in shapes.items()}
    size, sizes = dense.num_params, [dense.num_params]
    for path, spec in moves:
        entries = count(spec, *shapes[path])
        size, held[path] = size - held[path] + entries, entries
        sizes.append(size)
    taken = min(range(len(sizes)), key=lambda k: abs(sizes[k] - target))
    return dict(moves[:taken])


def _factors(path: str, weight: Tensor, spec: Mapping[str, Any]) -> dict[str, Tensor]:
    import torch

    from methods.nearest_kronecker import nearest_kronecker

    if spec["type"] == KroneckerEmbedding.kind:
        left, right = nearest_kronecker(weight, weight.shape[0], weight.shape[1] // prod(spec["factors"]))
        return {"left": left, "right_0": right}
    pairs = [nearest_kronecker(split, *spec["left"]) for split in weight.chunk(spec["splits"])]
    return {"left": torch.stack([a for a, _ in pairs])[:, None], "right": torch.stack([b for _, b in pairs])[:, None]}
