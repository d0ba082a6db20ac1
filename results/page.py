"""The board as one self-contained HTML page: no server, no network, no external file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from math import isfinite
from string import Template
from typing import Any

from results.formatting import (
    MARKS,
    before,
    count,
    duration,
    gain_cell,
    interval,
    legend,
    ranks,
    seeds,
    status,
    titles,
    value,
)
from results.model import Board, Column, Row, Score, Seed, Tab, Twin
from results.plots import NUM_COLOURS, colours, curves, log_ticks, quality, row_curves
from results.speed_view import latency, latency_ms, speed_facts
from results.table import heading
from results.training import training_facts


def page(board: Board) -> str:
    """The whole page. Everything that comes from a record is escaped, also inside the data block for the plots."""
    from plotly.offline import get_plotlyjs

    palette = colours(board)
    data = [_plots(board, tab, palette) for tab in board.tabs]
    sections = [_section(index, tab, palette) for index, tab in enumerate(board.tabs)]
    drawn = any(any(tab.values()) for tab in data)
    return Template(_asset("page.html")).substitute(
        title=escape(f"weighin: {board.sweep}" if board.sweep else "weighin"),
        sweep=escape(f"Sweep {board.sweep}" if board.sweep else "All sweeps of this store"),
        style=_asset("page.css"),
        tabs=_tabs(board),
        body="\n".join(sections) or f'<p class="empty">{escape(board.message)}</p>',
        legend=escape(legend(board)),
        data=script_json(data),
        plotly=get_plotlyjs() if drawn else "",
        script=_asset("page.js"),
    )


def _plots(board: Board, tab: Tab, palette: Mapping[str, int]) -> dict[str, Any]:
    """What the plots of a tab, and those inside its rows, are drawn from."""
    lines = {row.id: drawn for row in tab.rows if (drawn := row_curves(row))}
    rows = {id_: {"ticks": log_ticks(drawn), "lines": drawn} for id_, drawn in lines.items()}
    return {"quality": quality(board, tab, palette), "curves": curves(tab, palette), "rows": rows}


def _asset(name: str) -> str:
    return files("results").joinpath(name).read_text(encoding="utf-8")


def script_json(data: Any) -> str:
    """JSON that cannot end the script element it stands in, nor open a comment there."""
    text = json.dumps(data, allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _tabs(board: Board) -> str:
    """One line of budgets per teacher."""
    lines = []
    for teacher in sorted({tab.teacher for tab in board.tabs}):
        links = "".join(
            f'<a href="#tab-{index}" role="tab" id="link-{index}" aria-controls="tab-{index}">'
            f"{escape(tab.budget or 'teacher')}</a>"
            for index, tab in enumerate(board.tabs)
            if tab.teacher == teacher
        )
        lines.append(f'<div class="teacher"><span>{escape(teacher)}</span><div role="tablist">{links}</div></div>')
    return "".join(lines)


def _section(index: int, tab: Tab, palette: Mapping[str, int]) -> str:
    counts = [sum(row.status == kind for row in tab.rows) for kind in ("complete", "failed", "skipped")]
    summary = " · ".join(f"{n} {kind}" for n, kind in zip(counts, ("complete", "failed", "skipped"), strict=True) if n)
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in tab.notes)
    has_curves = any(seed.curve for group in tab.groups for row in group.rows for seed in row.seeds)
    options = "".join(
        f'<option value="{place}">{escape(name)}</option>' for place, name in enumerate(titles(tab.columns).values())
    )
    plots = (
        f'<figure><figcaption>Quality against size <select aria-label="metric">{options}</select></figcaption>'
        f'<div class="plot quality"></div></figure>'
        if tab.columns
        else ""
    )
    if has_curves:
        plots += '<figure><figcaption>Training loss</figcaption><div class="plot curves"></div></figure>'
    return (
        f'<section id="tab-{index}" role="tabpanel" aria-labelledby="link-{index}"><h2>{escape(heading(tab))}</h2>'
        f'<p class="summary">{summary}</p>{notes}{_table(tab, palette)}'
        f'{_gains(tab, palette) if tab.twins else ""}<div class="plots">{plots}</div></section>'
    )


def _table(tab: Tab, palette: Mapping[str, int]) -> str:
    names = titles(tab.columns)
    metrics = [_metric_heading(column, names[column.key]) for column in tab.columns]
    plain = [_heading(name) for name in ("params", "MACs / token", "latency", "cost", "seeds")]
    head = _heading("method", "text") + "".join([*metrics, *plain])
    width = len(tab.columns) + 6
    bounds = {column.key: _bounds(tab, column) for column in tab.columns}
    body = "".join(
        _kind(name, width) + "".join(_row(row, tab, place, bounds, palette) for row in rows)
        for place, (name, rows) in enumerate(tab.sections)
        if rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead>{body}</table></div>'


def _gains(tab: Tab, palette: Mapping[str, int]) -> str:
    """A second table: each row that has controls, with what it gains over each."""
    names = titles(tab.columns)
    metrics = [_gain_heading(names[column.key]) for column in tab.columns]
    plain = [_heading(name) for name in ("cost", "seeds")]
    head = _heading("method", "text") + _heading("gain from", "text") + "".join([*metrics, *plain])
    body = "".join(
        _kind(name, len(tab.columns) + 4) + "".join(_gains_row(row, twin, tab, palette) for row, twin in twins)
        for name, rows in tab.sections
        if (twins := [(row, twin) for row in rows for twin in tab.twins_of(row)])
    )
    return (
        f'<h3>Gains from distillation and decomposition</h3><div class="scroll">'
        f'<table class="gains"><thead><tr>{head}</tr></thead>{body}</table></div>'
    )


def _gains_row(row: Row, twin: Twin, tab: Tab, palette: Mapping[str, int]) -> str:
    control = twin.row
    swatch = f'<i class="swatch c{palette[row.label] % NUM_COLOURS}"></i>' if row.label in palette else ""
    reason = f'<small class="reason">{escape(status(control))}</small>' if control.reason else ""
    cells = [
        f'<th scope="row" data-sort="{escape(row.label)}">{swatch}{escape(row.label)}{reason}</th>',
        f'<td class="text" data-sort="{twin.gain_from}">{twin.gain_from}<small>{escape(control.id)}</small></td>',
        *(_gain_cell(twin, column) for column in tab.columns),
        _cell(control.cost.worker_s, duration(control.cost.worker_s)),
        _cell(len(control.seeds), seeds(control)),
    ]
    return f'<tbody class="row {escape(control.status)}"><tr>{"".join(cells)}</tr></tbody>'


def _gain_heading(title: str) -> str:
    protocol, _, rest = title.partition(" ")
    return (
        f'<th scope="col" class="number" title="positive is better"><button type="button">{escape(protocol)}'
        f"<small>{escape(rest)} gain</small></button></th>"
    )


def _gain_cell(twin: Twin, column: Column) -> str:
    found = twin.gains.get(column.key)
    if found is None or not isfinite(found.value):
        return f'<td class="absent">{escape(gain_cell(twin, column))}</td>'
    middle, _, rest = gain_cell(twin, column).partition(" ")
    return f'<td data-sort="{found.value!r}"><b>{middle}</b><small>{escape(rest)}</small></td>'


def _kind(name: str, width: int) -> str:
    """The line above the rows of one recipe kind."""
    title = escape(name[0].upper() + name[1:])
    return f'<tbody class="kind"><tr><th colspan="{width}" scope="rowgroup">{title}</th></tr></tbody>'


def _heading(name: str, kind: str = "number") -> str:
    return f'<th scope="col" class="{kind}"><button type="button">{name}</button></th>'


def _metric_heading(column: Column, title: str) -> str:
    protocol, _, rest = title.partition(" ")
    direction = "higher is better" if column.higher_is_better else "lower is better"
    hint = escape(
        f"{column.metric} in {column.unit}, {direction}; data {column.data}{column.settings and '; ' + column.settings}"
    )
    return (
        f'<th scope="col" class="number" title="{hint}"><button type="button">{escape(protocol)}'
        f"<small>{escape(rest)} {column.arrow}</small></button></th>"
    )


def _bounds(tab: Tab, column: Column) -> tuple[float, float]:
    """The range of a column's intervals, for the small interval drawings."""
    found = [row.scores[column.key].summary for row in tab.rows if column.key in row.scores]
    ends = [end for s in found for end in (s.value, s.low, s.high) if end is not None and isfinite(end)]
    return (min(ends), max(ends)) if ends else (0.0, 1.0)


def _row(row: Row, tab: Tab, place: int, bounds: Mapping[str, tuple[float, float]], palette: Mapping[str, int]) -> str:
    swatch = f'<i class="swatch c{palette[row.label] % NUM_COLOURS}"></i>' if row.label in palette else ""
    fields = ", ".join(f"{name}={item}" for name, item in sorted(row.fields.items()))
    badge = f'<span class="badge">{escape(row.status)}</span>' if row.status != "complete" else ""
    reason = f'<small class="reason">{escape(row.reason)}</small>' if row.reason else ""
    cells = [
        f'<th scope="row" data-sort="{escape(row.label)}"><button type="button" class="open" aria-expanded="false">'
        f"{swatch}{escape(row.method)}</button>{badge}<small>{escape(fields)}</small>{reason}</th>",
        *(_score_cell(row.scores.get(column.key), bounds[column.key]) for column in tab.columns),
        *_measured_cells(row),
        _cell(row.cost.worker_s, duration(row.cost.worker_s)),
        _cell(len(row.seeds), seeds(row)),
    ]
    return (
        f'<tbody class="row {escape(row.status)}" data-kind="{place}"><tr>{"".join(cells)}</tr>'
        f'<tr class="more" hidden><td colspan="{len(tab.columns) + 6}">{_details(row, tab)}</td></tr></tbody>'
    )


def _measured_cells(row: Row) -> list[str]:
    """Parameters, multiply-adds per token, latency."""
    size, speed = row.size, row.speed
    sizes = [_cell(None, None)] * 2
    if size:
        params = f"{count(size.params)}<small>{size.params_fraction:.3f}</small>"
        sizes = [_cell(size.params, params), _cell(size.macs_per_token, count(size.macs_per_token))]
    return [*sizes, _cell(latency_ms(speed), escape(latency(speed))) if speed else _cell(None, None)]


def _cell(sort: float | None, html: str | None) -> str:
    if sort is None or html is None:
        return '<td class="absent">–</td>'
    return f'<td data-sort="{sort!r}">{html}</td>'


def _score_cell(score: Score | None, bounds: tuple[float, float]) -> str:
    if score is None or not isfinite(score.summary.value):
        return _cell(None, None)
    s = score.summary
    rank = f'<span class="rank" title="ranks the data allow">{ranks(score)}</span>' if score.rank else ""
    front = '<span class="front" title="on the Pareto front">◆</span>' if score.pareto else ""
    note = escape(" ".join(filter(None, (before(score), interval(s)))))
    return (
        f'<td data-sort="{s.value!r}"><span class="value">{front}{rank}<b>{value(s)}</b></span>'
        f"<small>{note}</small>{_whisker(s.value, s.low, s.high, bounds)}</td>"
    )


def _whisker(middle: float, low: float | None, high: float | None, bounds: tuple[float, float]) -> str:
    """The interval drawn on the column's common scale."""
    start, width = bounds[0], bounds[1] - bounds[0] or 1.0
    x, x1, x2 = (
        4 + 92 * (end - start) / width
        for end in (middle, middle if low is None else low, middle if high is None else high)
    )
    return (
        f'<svg viewBox="0 0 100 8" aria-hidden="true"><line x1="{x1:.1f}" x2="{x2:.1f}" y1="4" y2="4"/>'
        f'<circle cx="{x:.1f}" cy="4" r="2.6"/></svg>'
    )


def _details(row: Row, tab: Tab) -> str:
    shown = [(column, row.scores[column.key]) for column in tab.columns if column.key in row.scores]
    facts: dict[str, str] = {"row": row.id, "recipe": f"{row.recipe} {row.recipe_digest}", "status": status(row)}
    facts |= training_facts(row)
    for column, score in shown:
        facts[f"{column.protocol} {column.metric}"] = _evidence(score)
    if row.size:
        facts["stored"] = f"{count(row.size.stored_bytes)}B, {count(row.size.materialised_bytes)}B materialised"
        facts["without embeddings"] = f"{count(row.size.params_without_embedding)} parameters"
    if row.speed:
        facts |= speed_facts(row.speed)
    facts["cost by stage"] = ", ".join(f"{name} {duration(s)}" for name, s in row.cost.worker_s_by_stage.items())
    curve = ""
    if any(seed.curve for seed in row.seeds):
        curve = (
            "<figure><figcaption>Training loss and its parts, every seed</figcaption>"
            f'<div class="plot inside" data-row="{escape(row.id)}"></div></figure>'
        )
    return (
        f'<p><code class="command">weighin show {escape(row.id)}</code></p>{_facts(facts)}{curve}'
        f'<div class="seeds">{"".join(_seed(seed) for seed in row.seeds)}</div>'
    )


def _evidence(score: Score) -> str:
    s = score.summary
    parts = [f"{value(s)} [{interval(s)}], {s.basis}: {s.seeds} seeds, {s.items} items"]
    parts += [s.note] if s.note and s.basis not in MARKS else []
    parts += [f"before training {value(score.before)}"] if score.before else []
    parts += [f"not separable from {', '.join(score.tied)}"] if score.tied else []
    return "; ".join(parts)


def _seed(seed: Seed) -> str:
    facts = {name: item if isinstance(item, str) else json.dumps(item) for name, item in seed.provenance.items()}
    facts |= {f"stage {name}": key for name, key in seed.stages.items()}
    failure = ""
    if seed.failure:
        told = f"{seed.failure.stage} ({seed.failure.failure_class}): {seed.failure.reason}"
        failure = f'<p class="reason">{escape(told)}</p>'
        failure += f"<pre>{escape(seed.failure.log_tail)}</pre>" if seed.failure.log_tail else ""
    return f"<details><summary>seed {seed.seed}: {escape(seed.status)}</summary>{failure}{_facts(facts)}</details>"


def _facts(facts: Mapping[str, str]) -> str:
    pairs: Sequence[str] = [f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts.items() if text]
    return f"<dl>{''.join(pairs)}</dl>"
