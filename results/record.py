"""The record: one immutable JSON per cell with its status, measurements, cost and provenance."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from results.speed_card import SpeedCard

SCHEMA = 2
"""Version of the record's form; a store with a higher one was written by a newer weighin."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


ControlKind = Literal["no_teacher", "random_init"]


class Control(_Part):
    """What a control leaves out, and of which row."""

    kind: ControlKind
    """`no_teacher`: the recipe's teacher terms. `random_init`: what the method took from the teacher's weights."""
    of: str
    """The row whose twin it is."""


class Cell(_Part):
    """teacher x method x budget x recipe (a row) x seed."""

    teacher: str
    """Display name of the teacher."""
    method: str
    fields: dict[str, Any] = Field(default_factory=dict)
    """The method's fields that differ from their defaults."""
    budget: str | None
    """`params=0.66`; None for methods that ignore budgets (shown on every tab)."""
    recipe: str
    """`none`, `shared` or `paper`."""
    recipe_digest: str
    seed: int
    control: Control | None = None
    """None for a contender; a control stands beside its row and is never ranked."""


class Measured(_Part):
    """One metric of one protocol."""

    protocol: str
    metric: str
    value: float
    unit: str
    higher_is_better: bool
    main: bool
    """The protocol's main metric."""
    when: Literal["final", "before_training"] = "final"
    data: str
    """The data's fingerprint or revision."""
    settings: str = ""
    """For a fine-tuned task: how it was trained (`2 epochs, 8000 rows, ILKD (kd 0.5, taps 0.1), recipe 1a2b3c4d`)."""
    items_path: str | None = None
    """Store path of `items.parquet` (columns as in `tasks.interface.Measurement.items`)."""
    items_sha256: str | None = None
    stage_key: str


class SizeCard(_Part):
    """Counted by the harness on the student as built, never claimed by the method."""

    params: int
    """Unique parameters, a tied matrix once."""
    params_fraction: float
    """params / the teacher's params."""
    params_without_embedding: int
    params_without_output: int
    """Without a separate output matrix, as some papers count; equal to `params` when it is tied."""
    stored_bytes: int
    materialised_bytes: int
    macs_per_token: int
    """Multiply-adds per token of all matrix products with weights, the output matrix included."""


class StageCost(_Part):
    """What one stage of the cell took, over all attempts; shared stages are split by the board."""

    stage: str
    key: str
    worker_s: float
    tokens: int = 0
    flops: float = 0.0
    attempts: int = 1


class Trial(_Part):
    """One learning rate, tried for a part of the training."""

    learning_rate: float
    held_out_loss: float | None = None
    """Mean cross-entropy in nats per token of training text that was held out."""
    held_out_score: float | None = None
    """Of a fine-tuning: the task's main metric on training examples that were held out."""
    diverged_at_step: int | None = None
    """Of a trial that diverged, which has neither of the others."""
    tokens: int
    flops: float


class Tuning(_Part):
    """The learning rates tried for one training (a phase's, of a staged method); their cost is in `costs` too."""

    task: str = ""
    """What it is a fine-tuning for; empty for training by the recipe."""
    trials: list[Trial]
    learning_rate: float | None
    """The one taken: of least held-out loss or best score; None when the training has no result."""


class Failure(_Part):
    """Why a cell has no result."""

    stage: str
    failure_class: str
    """`infrastructure`, `out_of_memory`, `diverged`, `budget`, `method`, `data`."""
    reason: str
    log_tail: str = ""


class Record(_Part):
    """Everything known about one cell."""

    schema_version: int = SCHEMA
    row: str
    """Eight hex digits: the cell without its seed."""
    sweep: str
    cell: Cell
    status: Literal["complete", "failed", "skipped"]
    reason: str = ""
    """Why it was skipped or failed, one line."""
    failure: Failure | None = None
    measured: list[Measured] = Field(default_factory=list)
    size: SizeCard | None = None
    speed: SpeedCard | None = None
    costs: list[StageCost] = Field(default_factory=list)
    tuning: list[Tuning] = Field(default_factory=list)
    """Where the recipe or a fine-tuning has a grid of learning rates: one per training."""
    curve: list[dict[str, float]] = Field(default_factory=list)
    """Loss curve of the training stage, thinned: step, tokens, loss and its parts, gradient_norm, learning_rate."""
    stages: dict[str, str] = Field(default_factory=dict)
    """Stage label -> key, for every stage of the cell."""
    provenance: dict[str, Any] = Field(default_factory=dict)
    """Commit, dirty flag, versions, python, host class, execution (workers, threads), created_at."""

    @property
    def id(self) -> str:
        """`ROW#seed`, what the command line takes."""
        return f"{self.row}#{self.cell.seed}"
