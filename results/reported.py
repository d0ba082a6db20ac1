"""What papers reported: `reported.yaml`, read strictly.

A table of that file has columns (what was measured, and by which protocol) and per model a value for each column. Every
value becomes one `Reported`, with where it stands and how far it can be trusted. None of them is ever ranked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from results.errors import StoreError
from results.unique_keys import UniqueKeys

FILE = "reported.yaml"
Certainty = Literal["verified", "second-hand", "unverified"]
Match = Literal["same", "other", "unknown"]
Rule = Literal["unique", "without_output_matrix", "scales_folded"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Source(_Strict):
    """A paper by its arXiv id, or a page by its address; some are known only as quoted by others."""

    title: str
    arxiv: str | None = Field(default=None, pattern=r"^\d{4}\.\d{5}$")
    url: str | None = Field(default=None, pattern=r"^https://[^\s<>\"']+$")

    @property
    def citation(self) -> str:
        """`Krony-PT, v2 (arXiv 2412.12351)`."""
        return f"{self.title} (arXiv {self.arxiv})" if self.arxiv else self.title


class Teacher(_Strict):
    """A published teacher, and the names that a sweep may give it."""

    aliases: tuple[str, ...]
    params: int | None = None
    """Unique parameters. A measured teacher of another size is another teacher, whatever its name."""


class Model(_Strict):
    """A published model: what it is in weighin's words, and what it weighs."""

    name: str
    teacher: str
    method: str
    fields: dict[str, Any] = Field(default_factory=dict)
    """The method's fields that build it; empty where its shapes are not known."""
    source: str | None = None
    """Who made it; None for the teachers."""
    printed: str | None = None
    rule: Rule | None = None
    params_paper: int | None = None
    params: int | None = None
    note: str = ""


class Column(_Strict):
    """What was measured, in the source's words and, as far as it goes, in ours."""

    measure: str
    metric: str
    setting: str = ""
    unit: str | None = None
    protocol: str | None = None
    match: Match
    higher_is_better: bool | None = None
    note: str = ""

    @model_validator(mode="after")
    def _same_as_what(self) -> Column:
        if self.match == "same" and self.protocol is None:
            raise ValueError("match: same needs the protocol that it is the same as")
        return self


class Table(_Strict):
    """Values of one place in one source: a row per model, in the order of the columns; null where there is none."""

    source: str
    where: str
    certainty: Certainty
    unit: str = "perplexity"
    higher_is_better: bool = False
    columns: tuple[Column, ...]
    values: dict[str, tuple[float | None, ...]]

    @model_validator(mode="after")
    def _as_many(self) -> Table:
        for name, values in self.values.items():
            if len(values) != len(self.columns):
                raise ValueError(f"{name} has {len(values)} values for {len(self.columns)} columns")
        return self


class Collection(_Strict):
    """The whole file; every name that is used is defined in it."""

    sources: dict[str, Source]
    teachers: dict[str, Teacher]
    models: dict[str, Model]
    tables: tuple[Table, ...]

    @model_validator(mode="after")
    def _names_are_known(self) -> Collection:
        used: list[tuple[str, str, Mapping[str, _Strict]]]
        used = [("teacher", each.teacher, self.teachers) for each in self.models.values()]
        used += [("source", each.source, self.sources) for each in self.models.values() if each.source]
        used += [("source", table.source, self.sources) for table in self.tables]
        used += [("model", name, self.models) for table in self.tables for name in table.values]
        for kind, name, known in used:
            if name not in known:
                raise ValueError(f"{kind} {name!r} is not defined{_nearest(name, known)}")
        return self

    @property
    def numbers(self) -> list[Reported]:
        """Every value, in the file's order."""
        return [each for table in self.tables for each in self._of_table(table)]

    def _of_table(self, table: Table) -> Iterator[Reported]:
        source = self.sources[table.source]
        for name, values in table.values.items():
            for column, value in zip(table.columns, values, strict=True):
                if value is not None:
                    yield Reported(
                        key=name,
                        model=self.models[name],
                        column=column,
                        value=value,
                        unit=column.unit or table.unit,
                        higher_is_better=(
                            table.higher_is_better if column.higher_is_better is None else column.higher_is_better
                        ),
                        certainty=table.certainty,
                        citation=f"{source.citation}, {table.where}",
                        own=_of(self.models[name].source) == _of(table.source),
                    )


@dataclass(frozen=True, kw_only=True)
class Reported:
    """One number that a source gives for one model."""

    key: str
    """The model's, in `reported.yaml`."""
    model: Model
    column: Column
    value: float
    """As printed, in `unit`."""
    unit: str
    higher_is_better: bool
    certainty: Certainty
    citation: str
    own: bool
    """The source is the one that made the model."""

    @property
    def what(self) -> str:
        """`WikiText-2 test, removed 20 %`."""
        return f"{self.column.measure}, {self.column.setting}" if self.column.setting else self.column.measure

    @property
    def notes(self) -> str:
        """Of the model and of the column."""
        return "; ".join(filter(None, (self.column.note, self.model.note)))


def _of(source: str | None) -> str:
    """A paper, its repository and its versions are one origin."""
    first = (source or "").removesuffix("-repository").removesuffix("-card").removesuffix("-early")
    return first.removesuffix("-v1").removesuffix("-v2")


if TYPE_CHECKING:
    from yaml import SafeLoader as _Loader
else:
    # The C one is several times as fast, and every board reads the numbers.
    _Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _UniqueKeyLoader(UniqueKeys, _Loader):
    """SafeLoader that refuses a repeated key."""


def parse(text: str, where: str = FILE) -> Collection:
    """A collection from YAML text; `StoreError`, one line with place and key, on the first mistake."""
    try:
        data = json.dumps(yaml.load(text, _UniqueKeyLoader), allow_nan=False)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise StoreError(f"{where}: {place}{error.problem}") from error
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        raise StoreError(f"{where}: {_flat(str(error))}") from error
    try:
        return Collection.model_validate_json(data)
    except ValidationError as error:
        found = error.errors()
        first = next((each for each in found if each["type"] == "extra_forbidden"), found[0])
        key, told = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            told = f"unknown key{_nearest(str(first['loc'][-1]), _keys_beside(first['loc']))}"
        raise StoreError(_flat(f"{where}: {key}: {told}" if key else f"{where}: {told}")) from error


def _keys_beside(place: tuple[int | str, ...]) -> list[str]:
    """The keys that could stand at a place."""
    kinds: Mapping[int | str, type[_Strict]] = {"sources": Source, "teachers": Teacher, "models": Model}
    if len(place) < 3:
        return list(Collection.model_fields)
    if place[0] == "tables":
        return list((Column if place[2] == "columns" and len(place) > 3 else Table).model_fields)
    return list(kinds[place[0]].model_fields)


def _nearest(word: str, known: Any) -> str:
    close = get_close_matches(word, sorted(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"


def _flat(text: str) -> str:
    return " ".join(text.split())


@cache
def collection() -> Collection:
    """The numbers that come with weighin."""
    return parse(files("results").joinpath(FILE).read_text(encoding="utf-8"))
