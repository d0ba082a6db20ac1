"""What a row of the page opens to: how it was measured, made and paid for, and how to make it again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from results.formatting import MARKS, count, duration, interval, status, value
from results.model import Row, Score, Seed, Tab
from results.plots import row_curves
from results.size_view import size_facts
from results.speed_view import speed_facts
from results.training import training_facts


def details(row: Row, tab: Tab, stores: Sequence[str]) -> dict[str, Any]:
    """Commands, facts, seeds and loss curves of one row."""
    return {
        "commands": [*commands(row.id, stores), *([row.refresh] if row.refresh else [])],
        "facts": [[name, text] for name, text in _facts(row, tab).items() if text],
        "seeds": [_seed(seed) for seed in row.seeds],
        "curves": _curves(row),
    }


def commands(row: str, stores: Sequence[str]) -> list[str]:
    """What shows a row, prints the sweep that makes it again, and measures its checkpoint again."""
    where = "".join(f" --store {shlex.quote(without_password(store))}" for store in stores)
    return [f"weighin {verb} {shlex.quote(row)}{where}" for verb in ("reproduce", "show", "verify")]


def without_password(url: str) -> str:
    """A store's URL as a page may show it: no user, no password, no query."""
    parts = urlsplit(url)
    if not parts.scheme or not parts.netloc:
        return url
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _facts(row: Row, tab: Tab) -> dict[str, str]:
    facts: dict[str, str] = {"row": row.id, "sweep": row.sweep, "recipe": f"{row.recipe} {row.recipe_digest}".strip()}
    facts |= {"status": status(row), "out of date": row.stale}
    facts["checked"] = row.verified.text if row.verified else "claimed: nobody has evaluated it again"
    facts["store"] = row.store
    facts |= training_facts(row)
    labels = {other.id: other.label for other in tab.rows}
    for column in tab.columns:
        if column.key in row.scores:
            facts[f"{column.protocol} {column.metric}"] = _evidence(row.scores[column.key], labels)
    if row.size:
        facts |= size_facts(row.size, row.method)
    if row.speed:
        facts |= speed_facts(row.speed)
    stages = ", ".join(f"{name} {duration(s)}" for name, s in row.cost.worker_s_by_stage.items())
    return facts | {"cost by stage": stages, "cost in FLOPs": count(row.cost.flops) if row.cost.flops else ""}


def _evidence(score: Score, labels: Mapping[str, str]) -> str:
    s = score.summary
    parts = [f"{value(s)} [{interval(s)}], {s.basis}: {s.seeds} seeds, {s.items} items"]
    parts += [s.note] if s.note and s.basis not in MARKS else []
    parts += [f"before training {value(score.before)}"] if score.before else []
    names = ", ".join(labels.get(id_, id_) for id_ in score.tied[:20])
    parts += [f"not separable from {len(score.tied)} rows: {names}"] if names else []
    return "; ".join(parts)


def _seed(seed: Seed) -> dict[str, Any]:
    facts = {name: _text(item) for name, item in seed.provenance.items()}
    facts |= {f"stage {name}": key for name, key in seed.stages.items()}
    told = {"title": f"seed {seed.seed}: {seed.status}", "facts": [[name, text] for name, text in facts.items()]}
    if failure := seed.failure:
        told["reason"] = f"{failure.stage} ({failure.failure_class}): {failure.reason}"
        told["log"] = failure.log_tail
    elif seed.reason:
        told["reason"] = seed.reason
    return told


def _text(item: Any) -> str:
    return item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)


def _curves(row: Row) -> list[dict[str, Any]]:
    """Per seed: training tokens `x`, where they differ from the first seed's, and loss and its parts against them."""
    seeds: dict[int, dict[str, Any]] = {}
    for line in row_curves(row):
        curve: dict[str, Any] = seeds.setdefault(line["seed"], {"seed": line["seed"], "x": line["x"], "parts": {}})
        curve["parts"][line["part"]] = line["y"]
    curves = list(seeds.values())
    return [*curves[:1], *({k: v for k, v in c.items() if k != "x" or v != curves[0]["x"]} for c in curves[1:])]


def all_details(tab: Tab, stores: Sequence[str]) -> Mapping[str, dict[str, Any]]:
    """Row id -> what it opens to."""
    return {row.id: details(row, tab, stores) for row in tab.rows}
