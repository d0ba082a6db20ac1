"""The record: one immutable JSON per outcome of a cell with its status, measurements, cost and provenance.

Its JSON Schema is `results/schema/record.v2.json`, made from this module by `results.record_schema`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from results.record_types import Amount, Count, Fields, Finite, Key, Name, Number, Part, StorePath, Text
from results.speed_card import SpeedCard

SCHEMA = 2
"""Version of the record's form; a record with a higher one was written by a newer weighin."""


ControlKind = Literal["no_teacher", "random_init"]


class Control(Part):
    """What a control leaves out, and of which row."""

    kind: ControlKind
    """`no_teacher`: the recipe's teacher terms. `random_init`: what the method took from the teacher's weights."""
    of: Key
    """The row whose twin it is."""


class Cell(Part):
    """teacher x method x budget x recipe (a row) x seed."""

    teacher: Name
    """Display name of the teacher."""
    method: Name
    """Name of the method's module or entry point."""
    fields: Fields = Field(default_factory=dict)
    """The method's fields that differ from their defaults."""
    budget: Name | None
    """`params=0.66`; None for methods that ignore budgets (shown on every tab)."""
    recipe: Name
    """`none`, `shared` or `paper`."""
    recipe_digest: Name
    """Digest of the whole recipe: rows of unequal ones are never ranked together."""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)]
    """Of what is drawn for this cell: the student's start where it has one, dropout, the order of its batches."""
    control: Control | None = None
    """None for a contender; a control stands beside its row and is never ranked."""


class Measured(Part):
    """One metric of one protocol."""

    protocol: Name
    """Name of the protocol with its version."""
    metric: Name
    """Name of the metric within the protocol."""
    value: Number
    """As measured; one that is not finite is kept, shown and never ranked."""
    unit: Name
    """Unit of the value."""
    higher_is_better: bool
    """Which way is better."""
    main: bool
    """Whether it is the protocol's main metric, which has a column on the board."""
    when: Literal["final", "before_training"] = "final"
    """Of the finished student, or of the one as compressed."""
    data: Name
    """The data's fingerprint or revision."""
    settings: Name = ""
    """For a fine-tuned task: how it was trained (`2 epochs, 8000 rows, ILKD (kd 0.5, taps 0.1), recipe 1a2b3c4d`)."""
    items_path: StorePath | None = None
    """Store path of `items.parquet` (columns as in `tasks.interface.Measurement.items`)."""
    items_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """Checksum of that file; items that do not match it are not used."""
    stage_key: Key
    """Key of the stage that measured it."""


class SizeCard(Part):
    """Counted by the harness on the student as built, never claimed by the method."""

    params: Count
    """Unique parameters, a tied matrix once."""
    params_fraction: Amount
    """params / the teacher's params."""
    params_without_embedding: Count
    """Without the matrices of token and position embeddings."""
    params_without_output: Count
    """Without a separate output matrix, as some papers count; equal to `params` when it is tied."""
    stored_bytes: Count
    """Of the student's files of weights."""
    materialised_bytes: Count
    """Of the dense model it stands for."""
    macs_per_token: Count
    """Multiply-adds per token of all matrix products with weights, the output matrix included."""


class StageCost(Part):
    """What one stage of the cell took, over all attempts; shared stages are split by the board."""

    stage: Name
    """Name of the stage."""
    key: Key
    """Key of its artifact."""
    worker_s: Amount
    """Seconds, times the workers that were held."""
    tokens: Count = 0
    """Training tokens."""
    flops: Amount = 0.0
    """Floating-point operations, the teacher's forward pass included."""
    attempts: Count = 1
    """How often it was started."""


class Trial(Part):
    """One learning rate, tried for a part of the training."""

    learning_rate: Finite
    """The rate that was tried."""
    held_out_loss: Number | None = None
    """Mean cross-entropy in nats per token of training text that was held out."""
    held_out_score: Number | None = None
    """Of a fine-tuning: the task's main metric on training examples that were held out."""
    diverged_at_step: Count | None = None
    """Of a trial that diverged, which has neither of the others."""
    tokens: Count
    """Training tokens of the trial."""
    flops: Amount
    """Its floating-point operations."""


class Tuning(Part):
    """The learning rates tried for one training (a phase's, of a staged method); their cost is in `costs` too."""

    task: Name = ""
    """What it is a fine-tuning for; empty for training by the recipe."""
    trials: list[Trial]
    """Each rate of the grid that has a result."""
    learning_rate: Finite | None
    """The one taken: of least held-out loss or best score; None when the training has no result."""


class Failure(Part):
    """Why a cell has no result."""

    stage: Name
    """The stage that failed."""
    failure_class: Name
    """`infrastructure`, `out_of_memory`, `diverged`, `budget`, `method`, `data`."""
    reason: Text
    """What went wrong, one line."""
    log_tail: Text = ""
    """The end of what the stage printed."""


class Record(Part):
    """Everything known about one cell."""

    schema_version: int = SCHEMA
    """Version of this form."""
    row: Key
    """Eight hex digits: the cell without its seed."""
    sweep: Name
    """Name of the sweep that it was run for."""
    cell: Cell
    """What was compared."""
    status: Literal["complete", "failed", "skipped"]
    """How the cell ended."""
    reason: Text = ""
    """Why it was skipped or failed, one line."""
    failure: Failure | None = None
    """Of a failed cell."""
    measured: list[Measured] = Field(default_factory=list)
    """Every metric of every protocol that the cell was measured by."""
    size: SizeCard | None = None
    """None where there is no student."""
    speed: SpeedCard | None = None
    """None where it was not profiled."""
    costs: list[StageCost] = Field(default_factory=list)
    """A line for each stage that the cell needed."""
    tuning: list[Tuning] = Field(default_factory=list)
    """Where the recipe or a fine-tuning has a grid of learning rates: one per training."""
    curve: list[dict[str, Number]] = Field(default_factory=list)
    """Loss curve of the training stage, thinned: step, tokens, loss and its parts, gradient_norm, learning_rate."""
    stages: dict[str, Key] = Field(default_factory=dict)
    """Stage label -> key, for every stage of the cell."""
    provenance: dict[str, Any] = Field(default_factory=dict)
    """Commit, dirty flag, versions, python, host class, execution (workers, threads), created_at."""

    @property
    def id(self) -> str:
        """`ROW#seed`, what the command line takes."""
        return f"{self.row}#{self.cell.seed}"
