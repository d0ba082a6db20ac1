"""The difference of two rows as a reader sees it: in the terminal, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import exp
from typing import TYPE_CHECKING, Any

from results.diff import Change, Diff, MetricChange
from results.item_changes import Documents, Flips, Worse
from results.items import scale_of
from results.json_view import column_json, render

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

LISTED = 10
"""Items named in either direction, where the counts are over all."""
LONGEST = 60
"""Characters of a value in the terminal; JSON has it in full."""
FORMAT = 1


def as_json(found: Diff) -> str:
    """Everything, items in full."""
    blocks = {name: [asdict(each) for each in getattr(found, name)] for name in BLOCKS}
    return render(
        {
            "format": FORMAT,
            "a": found.a,
            "b": found.b,
            **blocks,
            "metrics": [_metric_json(each) for each in found.metrics],
            "flips": [asdict(each) | {"column": each.column.key} for each in found.flips],
            "documents": [asdict(each) | {"column": each.column.key} for each in found.documents],
        }
    )


BLOCKS: Mapping[str, str] = {
    "configuration": "configuration",
    "code": "code",
    "protocols": "protocols and data",
    "execution": "hardware and execution",
    "figures": "size and status",
}


def _metric_json(found: MetricChange) -> dict[str, Any]:
    return {
        "column": column_json(found.column),
        "a": found.a,
        "b": found.b,
        "seeds": found.seeds,
        **asdict(found.difference),
        "scale": scale_of(found.column.metric, found.column.protocol),
        "better": found.better,
    }


def as_terminal(found: Diff) -> RenderableType:
    """A block for each kind of difference; one without any is a line."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [Text(f"A {found.a}   B {found.b}", style="bold")]
    for name, title in BLOCKS.items():
        changes: Sequence[Change] = getattr(found, name)
        parts.append(_changes(title, changes) if changes else Text(f"{title}: the same", style="dim"))
    parts.append(_metrics(found) if found.metrics else Text("no metric that both have by one protocol on one data set"))
    parts += [part for each in found.flips for part in _flips(each)]
    parts += [part for each in found.documents for part in _documents(each)]
    return Group(*parts)


def _table(title: str, names: Sequence[str], left: Sequence[str]) -> Table:
    from rich.table import Table
    from rich.text import Text

    heading = Text(title)
    table = Table(title=heading, title_justify="left", box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.min_width = heading.cell_len
    for name in names:
        table.add_column(name, justify="left" if name in left else "right", overflow="fold")
    return table


def _changes(title: str, changes: Sequence[Change]) -> Table:
    from rich.text import Text

    table = _table(title, ("", "A", "B"), ("", "A", "B"))
    for each in changes:
        table.add_row(*(Text(text) for text in (each.what, _short(each.a), _short(each.b))))
    return table


def _short(value: Any) -> str:
    text = "–" if value is None else f"{value:,}" if type(value) is int else str(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _metrics(found: Diff) -> Table:
    """A perplexity's difference is shown as B / A - 1, which its logarithm's interval gives."""
    from rich.text import Text

    table = _table("metrics", ("metric", "A", "B", "B - A", "95 %", "p", "better"), ("metric", "better"))
    for each in found.metrics:
        gap, log = each.difference, scale_of(each.column.metric, each.column.protocol) == "log"
        change = [_change(value, log) for value in (gap.difference, gap.high, gap.low)]
        span = f"{change[1]} to {change[2]}" if gap.low is not None else f"· {gap.basis}"
        p_value = "–" if gap.p_value is None else f"{gap.p_value:.2g}"
        name = f"{each.column.protocol} {each.column.metric} {each.column.arrow}"
        name += " before training" if each.column.when == "before_training" else ""
        texts = [name, f"{each.a:.5g}", f"{each.b:.5g}", change[0], span, p_value, each.better.upper() or "?"]
        table.add_row(*(Text(text) for text in texts))
    return table


def _change(value: float | None, log: bool) -> str:
    """Of a - b on the comparison scale: b - a, or b / a - 1 in per cent."""
    if value is None:
        return "–"
    return f"{exp(-value) - 1:+.2%}" if log else f"{-value:+.4g}"


def _flips(found: Flips) -> list[RenderableType]:
    from rich.text import Text

    seeds = len(found.seeds)
    lost, gained = sum(found.right_to_wrong.values()), sum(found.wrong_to_right.values())
    over = f"{found.items:,} items" + (f" x {seeds} seeds" if seeds > 1 else "")
    title = (
        f"{found.column.protocol}, {over}: right in both {found.both_right:,}, wrong in both {found.both_wrong:,}, "
        f"right to wrong {lost:,}, wrong to right {gained:,}"
    )
    lines = [
        _named("right to wrong", found.right_to_wrong, seeds),
        _named("wrong to right", found.wrong_to_right, seeds),
    ]
    return [Text(title, style="bold"), *(Text(line) for line in lines if line)]


def _named(title: str, items: Mapping[str, int], seeds: int) -> str:
    if not items:
        return ""
    named = [f"{item} ({count} of {seeds})" if seeds > 1 else item for item, count in list(items.items())[:LISTED]]
    more = f" and {len(items) - LISTED:,} more" if len(items) > LISTED else ""
    return f"  {title}: items {', '.join(named)}{more}"


def _documents(found: Documents) -> list[RenderableType]:
    from rich.text import Text

    name = f"{found.column.protocol} {found.column.metric}"
    title = f"{name}: {len(found.worse):,} of {found.items:,} documents or windows are worse in B"
    parts: list[RenderableType] = [Text(f"{title}, {len(found.better):,} better", style="bold")]
    for word, listed in (("worse", found.worse), ("better", found.better)):
        if listed:
            parts.append(_listed(f"most {word}, nats per {found.per}", listed[:LISTED]))
    return parts


def _listed(title: str, listed: Sequence[Worse]) -> Table:
    from rich.text import Text

    table = _table(title, ("item", "A", "B", "B - A"), ("item",))
    for each in listed:
        texts = (each.item, f"{each.a:.4f}", f"{each.b:.4f}", f"{each.b - each.a:+.4f}")
        table.add_row(*(Text(text) for text in texts))
    return table
