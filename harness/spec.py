"""The sweep file: teacher, corpus, methods, budgets, recipes, tasks, seeds and resources, read strictly."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from harness.errors import SpecError, nearest
from harness.stage import Execution
from harness.yaml_loader import parse, read
from methods.interface import Unit
from methods.recipe import Count, FineTune, Recipe, Strict
from results.record import ControlKind
from tasks.corpora import Corpus

STAGES = (
    "corpus", "tokenizer", "tokens", "teacher", "calibrate", "compress", "tune", "distill", "finetune", "evaluate",
    "profile",
)  # fmt: skip
_UNKNOWN_KEY = frozenset({"extra_forbidden", "unexpected_keyword_argument"})
_BYTES = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def _one_word_or_mapping(key: str) -> BeforeValidator:
    """Let a list item be a bare word: `- glue.cola.v1` for `- task: glue.cola.v1`."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


def _memory(value: Any) -> Any:
    match = re.fullmatch(r"([0-9.]+) ?([KMGT]iB)", value) if isinstance(value, str) else None
    return round(float(match[1]) * _BYTES[match[2]]) if match else value


class Pretrain(Strict):
    """A teacher trained from scratch on the sweep's corpus."""

    family: Literal["gpt2", "llama"] = "gpt2"
    config: dict[str, int | float | bool | str]
    """Fields of the family's transformers configuration; `vocab_size` is the tokenizer's size too."""
    recipe: Recipe
    seed: int = Field(default=0, ge=0, lt=2**24)
    """The teacher's own seed: students of all seeds share one teacher."""


class Gguf(Strict):
    """A GGUF file, in an installed package or at a path."""

    file: str
    package: str | None = None
    """Python package that ships the file; without it `file` is a path."""


class Teacher(Strict):
    """The uncompressed model, in exactly one of four forms."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    pretrain: Pretrain | None = None
    model: str | None = None
    """A hub id (or a directory of the mirror); needs `revision`."""
    revision: str | None = None
    directory: str | None = None
    gguf: Gguf | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Teacher:
        given = [n for n in ("pretrain", "model", "directory", "gguf") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of pretrain, model, directory, gguf is needed; given: {given or 'none'}")
        return self


class MethodChoice(Strict):
    """A method and its fields; a field given as a list makes a grid."""

    name: str
    fields: dict[str, Any] = Field(default_factory=dict)


class BudgetChoice(Strict):
    """`params: 0.66` (fraction of the teacher) or `params: 82M`."""

    params: float | Count | None = None
    macs: float | Count | None = None
    bytes: float | Count | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> BudgetChoice:
        if len([v for v in (self.params, self.macs, self.bytes) if v is not None]) != 1:
            raise ValueError("a budget is one of params, macs, bytes: `params: 0.66` or `params: 82M`")
        if self.value <= 0:
            raise ValueError("a budget is above zero")
        return self

    @property
    def unit(self) -> Unit:
        units: tuple[Unit, ...] = ("params", "macs", "bytes")
        return next(unit for unit in units if getattr(self, unit) is not None)

    @property
    def value(self) -> float:
        return float(getattr(self, self.unit))


class RecipeChoice(Strict):
    """`none` (training-free), `paper` (the method's own) or `shared` (the same for every method)."""

    kind: Literal["none", "shared", "paper"]
    shared: Recipe | None = None


class Calibration(Strict):
    """Training text on which the teacher's statistics are measured, for methods that need some."""

    sequences: int = Field(default=32, gt=0)
    sequence_length: int | None = Field(default=None, gt=0)
    """None takes the teacher's context, up to 1024 tokens."""
    seed: int = Field(default=0, ge=0, lt=2**24)
    """Which sequences are drawn."""


class TaskChoice(Strict):
    """A task; for fine-tuned ones how it is trained, for `local.*` ones on what text."""

    task: str
    before_training: bool = False
    """Measure the student as compressed too, before its recipe (perplexity protocols)."""
    num_fewshot: int | None = Field(default=None, ge=0)
    """Examples in the prompt of one of lm-eval's tasks (`lm_eval:hellaswag`); None takes the task's own number."""
    train_rows: int | None = Field(default=None, gt=0)
    predict_test: bool = False
    """Predict the task's test sets too, for a server that scores them."""
    finetune: FineTune | None = None
    """Instead of the sweep's `finetune`."""
    text: str | None = None
    """File or directory that a `local.*` protocol measures."""


class Resources(Strict):
    """What one stage asks of the cluster; never changes a result's identity."""

    cpus: float = Field(default=1, gt=0)
    gpus: float = Field(default=0, ge=0)
    memory: Annotated[int | None, BeforeValidator(_memory)] = None
    """Per worker, `8GiB` or bytes."""
    workers: int = Field(default=1, gt=0)
    micro_batch: int | None = Field(default=None, gt=0)
    zero_stage: Literal[0, 1, 2, 3] = 0
    offload: bool = False
    activation_checkpointing: bool = False
    shard_teacher: bool = False
    """Partition the frozen teacher over the workers too; with `zero_stage: 3`."""
    checkpoint_every_s: float = Field(default=60.0, gt=0)
    checkpoint_every_steps: int | None = Field(default=None, gt=0)
    """Instead of `checkpoint_every_s`."""
    kept_checkpoints: int = Field(default=2, gt=0)
    collective_timeout_s: float = Field(default=600.0, gt=0)
    """How long a worker waits for another one before it gives up."""

    @model_validator(mode="after")
    def _sharded(self) -> Resources:
        if self.shard_teacher and self.zero_stage != 3:
            raise ValueError(f"shard_teacher: goes with zero_stage 3, not {self.zero_stage}")
        return self

    def execution(self) -> Execution:
        fields = self.model_dump()
        return Execution(memory_bytes=fields.pop("memory"), **fields)


def _without_credentials(uri: str | None) -> str | None:
    parts = urlsplit(uri or "")
    if "@" in parts.netloc:
        raise ValueError(
            "credentials do not belong in a sweep; MLflow reads MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    return uri


class TelemetryChoice(Strict):
    """Where the steps of training go besides the store's events; never changes a result's identity."""

    tensorboard: bool = False
    """Event files in the store's `tensorboard/`."""
    mlflow: Annotated[str | None, AfterValidator(_without_credentials)] = None
    """Tracking URI of an MLflow server."""
    wandb: str | None = Field(default=None, pattern=r"^([A-Za-z0-9._-]+/)?[A-Za-z0-9._-]+$")
    """`PROJECT` or `ENTITY/PROJECT` at Weights & Biases."""


def _method_entry(value: Any) -> Any:
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, dict) and len(value) == 1:
        name, fields = next(iter(value.items()))
        if fields is None or isinstance(fields, dict):
            return {"name": name, "fields": fields or {}}
    raise ValueError("a method is a name, or `name: {field: value}`")


def _recipe_entry(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else {"kind": "shared", "shared": value}


def _control(value: Any) -> Any:
    if value not in get_args(ControlKind):
        raise ValueError(f"{value!r} is no control{nearest(str(value), get_args(ControlKind))}")
    return value


def _seeds(value: Any) -> Any:
    return list(range(value)) if isinstance(value, int) and not isinstance(value, bool) and value > 0 else value


class Sweep(Strict):
    """One comparison: every method x budget x recipe x seed of a teacher, measured by every task."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    description: str = ""
    teacher: Teacher
    corpus: Corpus | None = None
    """Training text; not needed when nothing trains on text."""
    methods: list[Annotated[MethodChoice, BeforeValidator(_method_entry)]] = Field(min_length=1)
    budgets: list[BudgetChoice] = Field(min_length=1)
    recipes: list[Annotated[RecipeChoice, BeforeValidator(_recipe_entry)]] = Field(min_length=1)
    tasks: list[Annotated[TaskChoice, _one_word_or_mapping("task")]] = Field(min_length=1)
    finetune: FineTune | None = None
    """For the fine-tuned tasks that do not bring their own."""
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**24)]], BeforeValidator(_seeds)] = Field(
        default=[0], min_length=1
    )
    """`3` means 0, 1, 2."""
    controls: list[Annotated[ControlKind, BeforeValidator(_control)]] = Field(default_factory=list)
    """Twins of every cell that trains by a recipe: without the teacher's terms, from random factors."""
    calibration: Calibration = Calibration()
    telemetry: TelemetryChoice = TelemetryChoice()
    resources: dict[Literal["default", *STAGES], Resources] = Field(default_factory=dict)  # type: ignore[valid-type]

    @model_validator(mode="after")
    def _whole(self) -> Sweep:
        trains = self.teacher.pretrain is not None or any(r.kind != "none" for r in self.recipes)
        if trains and self.corpus is None:
            raise ValueError("corpus: needed, because this sweep trains on text")
        if self.controls and all(r.kind == "none" for r in self.recipes):
            raise ValueError("controls: twins of cells that train, and every recipe here is none")
        unique = (
            ("seeds", self.seeds),
            ("tasks", [(t.task, t.num_fewshot) for t in self.tasks]),
            ("controls", self.controls),
        )
        for label, values in unique:
            if len(set(values)) != len(values):
                raise ValueError(f"{label}: the same one twice")
        return self

    def execution(self, stage: str) -> Execution:
        """Resources of a stage: its own (a trial's those of `distill`), else the sweep's default, else one CPU."""
        return (self.resources.get(self.resources_of(stage)) or Resources()).execution()

    def resources_of(self, stage: str) -> str:
        """The key of `resources` that says where a stage runs."""
        names = (stage, *(["distill"] if stage == "tune" else []), "default")
        return next((name for name in names if name in self.resources), "default")


def load_sweep(path: Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read and check a sweep file; `overrides` are `key.path=value` with YAML values.

    Raises SpecError naming the file, the key and the nearest valid spelling.
    """
    data = read(path)
    for override in overrides:
        _apply(data, override)
    try:
        return Sweep.model_validate_json(json.dumps(data))
    except ValidationError as error:
        raise SpecError("\n".join(_sentences(path, error)[:2])) from error


def _apply(data: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    if not sign:
        raise SpecError(f"--set {override}: write key=value, as in --set seeds=3")
    *parents, last = key.split(".")
    at: Any = data
    for part in parents:
        at = at.setdefault(part, {}) if isinstance(at, dict) else None
    if not isinstance(at, dict):
        raise SpecError(f"--set {override}: {key} is not a key of a mapping")
    at[last] = parse(text, f"--set {key}")


def _sentences(path: Path, error: ValidationError) -> list[str]:
    """Unknown keys first: they explain what is missing."""
    unknown, others = [], []
    for mistake in error.errors():
        loc = mistake["loc"]
        where = ".".join(part for part in map(str, loc) if not part.startswith("["))
        if mistake["type"] in _UNKNOWN_KEY:
            unknown.append(f"{path}: {where}: unknown key{nearest(str(loc[-1]), _known_keys(loc))}")
        elif loc[-1:] == ("[key]",):
            unknown.append(f"{path}: {where}: unknown key{nearest(str(loc[-2]), ('default', *STAGES))}")
        else:
            message = mistake["msg"].removeprefix("Value error, ").removeprefix(f"{where}: ")
            others.append(f"{path}: {where + ': ' if where else ''}{message}")
    return unknown + others


def _known_keys(loc: Sequence[int | str]) -> list[str]:
    """The keys a schema allows where `loc`'s last part stands."""
    schema = Sweep.model_json_schema()
    at: Mapping[str, Any] = schema
    for part in loc[:-1]:
        at = at if str(part).startswith("[") else _descend(schema, at, part)
    return list(_resolve(schema, at).get("properties", {}))


def _descend(schema: Mapping[str, Any], at: Mapping[str, Any], part: int | str) -> Mapping[str, Any]:
    at = _resolve(schema, at)
    found: Mapping[str, Any]
    if isinstance(part, int):
        found = at.get("items", {})
    else:
        found = at.get("properties", {}).get(part) or at.get("additionalProperties") or {}
    return found


def _resolve(schema: Mapping[str, Any], at: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow references, and of alternatives take the first that is an object or a list."""
    while True:
        if "$ref" in at:
            at = schema["$defs"][at["$ref"].rsplit("/", 1)[-1]]
        elif choices := at.get("anyOf") or at.get("oneOf"):
            at = next((a for a in choices if "$ref" in a or a.get("type") in ("object", "array")), {})
        else:
            return at
