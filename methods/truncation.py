"""Layer truncation: drop blocks of the teacher, then go on pretraining what is left."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from methods.families import architecture
from methods.interface import Budget, MethodError, Plan, Refusal, Statistic, Statistics, Tap
from methods.layer_dropping import LayerDropping
from methods.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class Truncation(LayerDropping):
    """A shallower teacher: some blocks are kept as they are, without a teacher afterwards.  Short Study, 2110.08460.

    Of the paper only the abstract is known: a 6-layer GPT-2 made by layer truncation and then pretrained. Which layers
    it keeps is not known, so the rule is a field; L blocks, k of them kept:

    - `every_second`: floor(i L / k) for i of 0 .. k - 1, which is 0, 2, 4, .. for k = L / 2. The first block is always
      kept and the last one is dropped unless all are kept, where DistilGPT2's round(i (L - 1) / (k - 1)) keeps both.
    - `first_and_last`: the first ceil(k / 2) and the last floor(k / 2).
    - `block_influence`: the k blocks with the largest 1 - E[cos(x_in, x_out)], the hidden state before and after the
      block on calibration text; the lower number wins a tie. ShortGPT (2403.03853).
    """

    keep: Literal["every_second", "first_and_last", "block_influence"] = "every_second"
    """Which blocks are kept."""
    blocks: tuple[int, ...] | None = None
    """Numbers of the blocks to keep, ascending from 0, instead of `keep` and `kept_layers`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.blocks is None:
            return
        ascending = sorted(set(self.blocks))
        if not ascending or list(self.blocks) != ascending:
            raise MethodError(f"blocks: {list(self.blocks)} is no ascending list; nearest: {ascending or [0]}")
        if self.kept_layers not in (None, len(ascending)):
            raise MethodError(f"kept_layers: {self.kept_layers}, but blocks names {len(ascending)}; leave one out")

    @property
    def needs(self) -> frozenset[Statistic]:
        """How much each block changes its input, where that decides."""
        return frozenset({"block_influence"} if self._by_influence else ())

    @property
    def _by_influence(self) -> bool:
        return self.blocks is None and self.keep == "block_influence"

    def plan(self, teacher_config: PretrainedConfig, budget: Budget | None) -> Plan | Refusal:
        depth = len(architecture(teacher_config).blocks)
        outside = [i for i in self.blocks or () if not 0 <= i < depth]
        if outside:
            raise MethodError(f"blocks: {outside[0]} is no block of this model; they go from 0 to {depth - 1}")
        return super().plan(teacher_config, budget)

    def count(self, config: PretrainedConfig, budget: Budget | None) -> int:
        return super().count(config, budget) if self.blocks is None else len(self.blocks)

    def choice(self, depth: int, layers: int) -> dict[str, Any]:
        """`kept`, unless the teacher decides it: then `refine` adds it."""
        if self.blocks is not None:
            return {"kept": list(self.blocks)}
        if self.keep == "block_influence":
            return {}
        return {"kept": every_second(depth, layers) if self.keep == "every_second" else first_and_last(depth, layers)}

    def refine(self, teacher: PreTrainedModel, plan: Plan, statistics: Statistics) -> Plan:
        """Say which blocks have the largest influence; how many is decided already."""
        if not self._by_influence:
            return plan
        influence = [float(statistics["block_influence"][each]) for each in architecture(teacher.config).blocks]
        ranked = sorted(range(len(influence)), key=lambda i: (-influence[i], i))
        kept = sorted(ranked[: plan.config_changes["num_hidden_layers"]])
        return replace(plan, details={**plan.details, "kept": kept})

    def taps(self, teacher_config: PretrainedConfig, plan: Plan) -> list[Tap]:
        """MSE of the blocks' outputs: a student block stands for the teacher's from its own up to the next kept one."""
        blocks = architecture(teacher_config).blocks
        kept = plan.details.get("kept", ())
        last = [*(k - 1 for k in kept[1:]), len(blocks) - 1]
        return [Tap(teacher=blocks[t], student=blocks[i]) for i, t in enumerate(last[: len(kept)])]

    def recipe(self) -> Recipe:
        """Pretraining after truncation, cross entropy alone: all that the abstract says.

        Not known: tokens, learning rate, schedule, batch, sequence length, and how the data were cleaned. "Much
        shorter than DistilGPT2's" is taken as a tenth of OpenWebText at 9.0 billion tokens, where DistilGPT2 takes
        three epochs; the rest as for our KnGPT2, so that the two differ in the student alone.
        """
        return Recipe(tokens=900_000_000, batch_tokens=128 * 1024, sequence_length=1024, learning_rate=2.5e-4)


def every_second(depth: int, layers: int) -> list[int]:
    """floor(i depth / layers): every second block at half the depth, evenly spaced from the first at any other."""
    return [i * depth // layers for i in range(layers)]


def first_and_last(depth: int, layers: int) -> list[int]:
    """The bottom half and the top half of the blocks kept; the bottom has one more where the count is odd."""
    bottom = (layers + 1) // 2
    return [*range(bottom), *range(depth - (layers - bottom), depth)]
