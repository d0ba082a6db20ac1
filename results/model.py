"""What a board is: plain dataclasses that every rendering reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from results.power import Detectable
from results.reader import Rejected
from results.record import Control, ControlKind, Failure, SizeCard, Tuning
from results.speed_card import SpeedCard
from results.statistics import Summary
from results.verification import RowVerification

if TYPE_CHECKING:
    from results.changes import Changes
    from results.claims import Claim

GAIN_FROM: Mapping[ControlKind, str] = {"no_teacher": "distillation", "random_init": "decomposition"}
"""What a row has that its control has not."""


@dataclass(frozen=True)
class Column:
    """One main metric of one protocol version on one data set; nothing else is ever put in this column."""

    protocol: str
    metric: str
    data: str
    """Fingerprint or revision of the data."""
    settings: str
    """How a fine-tuned task was trained; empty for other protocols."""
    unit: str
    higher_is_better: bool
    when: str = "final"
    """`final` or `before_training`."""
    main: bool = True

    @property
    def key(self) -> str:
        """Unique on a board."""
        return "|".join((self.protocol, self.metric, self.data, self.settings, self.when, self.unit, self.arrow))

    @property
    def arrow(self) -> str:
        """Which way is better."""
        return "↑" if self.higher_is_better else "↓"


@dataclass(frozen=True)
class Score:
    """One row in one column."""

    summary: Summary
    by_seed: Mapping[int, float]
    before: Summary | None = None
    """The same metric before training, when it was measured."""
    rank: tuple[int, int] | None = None
    """Best and worst rank that the data allow; overlapping ranges may be ties. None when the row is not ranked."""
    tied: tuple[str, ...] = ()
    """Rows of the same group that are not separable from this one."""
    best: float | None = None
    """Share of resamples of items and seeds in which it is the best of its group (`results.bootstrap`)."""
    pareto: bool = False
    """No other row of the same teacher and recipe kind is better at no more parameters (2 % slack)."""


@dataclass(frozen=True)
class Seed:
    """How one cell ended."""

    seed: int
    status: str
    reason: str
    failure: Failure | None
    curve: Sequence[Mapping[str, float]]
    stages: Mapping[str, str]
    provenance: Mapping[str, Any]
    tuning: Sequence[Tuning] = ()
    tokens: int = 0
    """That the student was trained on by its recipe, trials of learning rates included; not fine-tuning."""
    flops: float = 0.0
    """Of the same training."""


@dataclass(frozen=True)
class Cost:
    """What a row took over all its seeds and attempts, its share of shared stages included."""

    worker_s: float
    tokens: float
    flops: float
    worker_s_by_stage: Mapping[str, float]


@dataclass(frozen=True)
class Row:
    """One line of the leaderboard: the cells that are equal but for the seed."""

    id: str
    teacher: str
    method: str
    fields: Mapping[str, Any]
    budget: str | None
    recipe: str
    recipe_digest: str
    sweep: str
    status: str
    """`complete`, `failed` (a seed failed), or `skipped`; only complete rows that are not stale are ranked."""
    reason: str
    seeds: Sequence[Seed]
    scores: Mapping[str, Score]
    """Column key -> score."""
    size: SizeCard | None
    speed: SpeedCard | None
    cost: Cost
    control: Control | None = None
    stale: str = ""
    """Why the row is out of date, and the command that refreshes it; a stale row is greyed, and `counts` nowhere."""
    refresh: str = ""
    """That command alone."""
    verified: RowVerification | None = None
    """None: its numbers are claimed, and nobody has evaluated it again."""

    @property
    def counts(self) -> bool:
        """Whether it may be ranked and be on a front: every seed complete, and up to date."""
        return self.status == "complete" and not self.stale

    @property
    def num_complete(self) -> int:
        """Seeds that have a result."""
        return sum(seed.status == "complete" for seed in self.seeds)

    @property
    def store(self) -> str:
        """On a board of several stores, where its seeds came from: `a`, or `a, b`."""
        return ", ".join(sorted({str(seed.provenance["store"]) for seed in self.seeds if "store" in seed.provenance}))

    @property
    def label(self) -> str:
        """`low_rank (layers=mlp)`."""
        fields = ", ".join(f"{name}={value}" for name, value in sorted(self.fields.items()))
        return f"{self.method} ({fields})" if fields else self.method


@dataclass(frozen=True)
class Group:
    """Rows of one recipe kind: the only rows that are ranked against each other."""

    recipe: str
    rows: Sequence[Row]


@dataclass(frozen=True)
class Comparison:
    """Two rows of one group in one column."""

    column: str
    a: str
    b: str
    difference: float
    """a - b; for a perplexity the logarithm of a / b."""
    low: float | None
    high: float | None
    p_value: float | None
    p_holm: float | None
    """Adjusted over all tested pairs of the tab in this column."""
    basis: str
    error: float | None = None
    """Standard error of the difference; None where it has none."""
    effect: float | None = None
    """Of accuracies Cohen's h, else d_z: the difference in standard deviations of the items' differences."""


@dataclass(frozen=True)
class Gain:
    """How much better a row is than its control in one column: positive is better."""

    value: float
    """row - control where higher is better, else control - row; for a perplexity the logarithm of control / row."""
    low: float | None
    high: float | None
    p_value: float | None
    p_holm: float | None
    """Adjusted over all gains of the tab in this column."""
    basis: str


@dataclass(frozen=True)
class Twin:
    """A control, which is never ranked, and what its row gains over it."""

    row: Row
    """The control's own scores, size and cost."""
    control: Control
    gains: Mapping[str, Gain]
    """Column key -> gain, where both are complete and have the column."""

    @property
    def gain_from(self) -> str:
        """What the row has that the control has not."""
        return GAIN_FROM[self.control.kind]


@dataclass(frozen=True)
class Tab:
    """One teacher at one budget."""

    teacher: str
    budget: str
    columns: Sequence[Column]
    references: Sequence[Row]
    """Rows that ignore budgets: the teacher itself first. Not ranked."""
    groups: Sequence[Group]
    comparisons: Sequence[Comparison]
    notes: Sequence[str] = ()
    twins: Sequence[Twin] = ()
    """Controls of the tab's rows, in the order of the rows."""
    detectable: Mapping[str, Detectable] = field(default_factory=dict)
    """Column key -> the smallest difference that it can show, and the noise of a seed; where something gives them."""
    reported: Sequence[Claim] = ()
    """What papers say about the tab's teacher and methods, never ranked."""

    @property
    def rows(self) -> list[Row]:
        """References first, then the groups in order."""
        return [*self.references, *(row for group in self.groups for row in group.rows)]

    @property
    def sections(self) -> list[tuple[str, Sequence[Row]]]:
        """The rows under their headings."""
        references = [("reference", self.references)] if self.references else []
        return references + [(f"recipe: {group.recipe}", group.rows) for group in self.groups]

    def twins_of(self, row: Row) -> list[Twin]:
        """The controls that stand beside a row."""
        return [twin for twin in self.twins if twin.control.of == row.id]


@dataclass(frozen=True)
class Board:
    """A leaderboard; `message` is what to tell a reader who finds it empty."""

    sweep: str | None
    tabs: Sequence[Tab] = field(default_factory=tuple)
    message: str = ""
    changes: Changes | None = None
    """Since another board, when one was asked for."""
    notes: Sequence[str] = ()
    """What a reader has to know of the whole board, such as stores that disagree."""
    rejected: Sequence[Rejected] = ()
    """Files that are no readable records, with the reason."""
