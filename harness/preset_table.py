"""`weighin methods --presets`: published configurations, and whether their parameter counts come out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

    from methods.interface import Method


@dataclass(frozen=True, kw_only=True)
class PresetCount:
    """One published count of one preset, for GPT-2 small, and ours by the same rule."""

    method: str
    preset: str
    rule: str
    published: int
    computed: int | None
    """None where the method cannot plan it."""
    source: str
    problem: str = ""

    @property
    def equal(self) -> bool:
        return self.computed == self.published


def preset_counts() -> list[PresetCount]:
    """Every count of every preset of every method; imports them and transformers.

    Raises:
        MethodError: a method does not import.
    """
    from methods import registry

    return [line for name in registry.names() for line in _of_method(name, registry.load(name))]


def _of_method(name: str, kind: type[Method]) -> Iterator[PresetCount]:
    from transformers import GPT2Config

    from methods.families import architecture
    from methods.fields import decode, settle
    from methods.interface import MethodError, Plan
    from methods.planning import counted

    for preset, declared in kind.presets.items():
        problem, plan = "", None
        try:
            answer = settle(decode(name, {"preset": preset})).plan(GPT2Config(), None)
        except MethodError as error:
            problem = str(error)
        else:
            plan = answer if isinstance(answer, Plan) else None
            problem = "" if isinstance(answer, Plan) else answer.reason
        for rule, published in declared.counts.items():
            computed = counted(architecture(GPT2Config()), plan, rule) if plan else None
            yield PresetCount(
                method=name,
                preset=preset,
                rule=rule,
                published=published,
                computed=computed,
                source=declared.source,
                problem=problem,
            )


def as_data(lines: list[PresetCount]) -> list[dict[str, Any]]:
    """For `--json`."""
    return [asdict(line) | {"equal": line.equal} for line in lines]


def as_table(lines: list[PresetCount]) -> RenderableType:
    """For reading."""
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for column in ("method", "preset", "counted", "published", "computed", "", "source"):
        table.add_column(column, justify="right" if column in ("published", "computed") else "left", overflow="fold")
    for line in lines:
        computed = line.problem if line.computed is None else f"{line.computed:,}"
        verdict = "equal" if line.equal else "differs"
        table.add_row(line.method, line.preset, line.rule, f"{line.published:,}", computed, verdict, line.source)
    return table
