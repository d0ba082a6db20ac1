"""The board as JSON, in a form that two runs can be compared in.

Of each row, `quality` and `size` are equal bit for bit when the same thing was computed; `speed`, `cost` and `run`
(timestamps, hosts, stage keys) are measurements of one occasion. Keys are sorted, floats are written in full.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from math import isfinite
from typing import Any

from results.claims import claim_json
from results.model import Board, Column, Row, Score, Seed, Tab, Twin

FORMAT = 1


def dumps(board: Board) -> str:
    """The whole board as JSON text."""
    return render(
        {
            "format": FORMAT,
            "sweep": board.sweep,
            "message": board.message,
            "notes": list(board.notes),
            "rejected": [asdict(each) for each in board.rejected],
            "tabs": [tab_json(tab) for tab in board.tabs],
            **({"changes": asdict(board.changes)} if board.changes else {}),
        }
    )


def render(data: Any) -> str:
    """JSON with sorted keys and full floats; a value that is not finite becomes null, since JSON has none."""
    return json.dumps(finite(data), sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def finite(data: Any) -> Any:
    """The same data with None for every number that is not finite."""
    if isinstance(data, float) and not isfinite(data):
        return None
    if isinstance(data, Mapping):
        return {str(key): finite(value) for key, value in data.items()}
    return [finite(item) for item in data] if isinstance(data, (list, tuple)) else data


def tab_json(tab: Tab) -> dict[str, Any]:
    """One tab; `comparisons` belongs to quality."""
    return {
        "teacher": tab.teacher,
        "budget": tab.budget,
        "columns": [column_json(column) for column in tab.columns],
        "references": [row_json(row) for row in tab.references],
        "groups": [{"recipe": group.recipe, "rows": [row_json(row) for row in group.rows]} for group in tab.groups],
        "comparisons": [asdict(comparison) for comparison in tab.comparisons],
        "detectable": {key: asdict(found) for key, found in tab.detectable.items()},
        "notes": list(tab.notes),
        "controls": [twin_json(twin) for twin in tab.twins],
        "reported": [claim_json(claim) for claim in tab.reported],
    }


def twin_json(twin: Twin) -> dict[str, Any]:
    """A control: of which row, what that row gains over it, and its own blocks."""
    gains = {key: asdict(gain) for key, gain in twin.gains.items()}
    return {"control": twin.control.kind, "of": twin.control.of, "gains": gains, "row": row_json(twin.row)}


def column_json(column: Column) -> dict[str, Any]:
    """A column and its key."""
    return {"key": column.key, **asdict(column)}


def row_json(row: Row) -> dict[str, Any]:
    """One row in its blocks."""
    return {
        "id": row.id,
        "store": row.store,
        "teacher": row.teacher,
        "method": row.method,
        "fields": row.fields,
        "budget": row.budget,
        "recipe": row.recipe,
        "recipe_digest": row.recipe_digest,
        "status": row.status,
        "reason": row.reason,
        "stale": row.stale,
        "refresh": row.refresh,
        "seeds": [_seed_json(seed) for seed in row.seeds],
        "quality": {key: _score_json(score) for key, score in row.scores.items()},
        "size": row.size.model_dump() if row.size else None,
        "speed": row.speed.model_dump() if row.speed else None,
        "cost": asdict(row.cost),
        "verified": asdict(row.verified) | {"mark": row.verified.mark} if row.verified else None,
        "run": {"sweep": row.sweep, "seeds": {str(s.seed): _run_json(s.stages, s.provenance) for s in row.seeds}},
    }


def _seed_json(seed: Seed) -> dict[str, Any]:
    outcome = {"seed": seed.seed, "status": seed.status, "reason": seed.reason}
    return outcome | {"tokens": seed.tokens, "flops": seed.flops, "tuning": [each.model_dump() for each in seed.tuning]}


def _score_json(score: Score) -> dict[str, Any]:
    return {
        **asdict(score.summary),
        "by_seed": {str(seed): value for seed, value in score.by_seed.items()},
        "before": asdict(score.before) if score.before else None,
        "rank": score.rank,
        "tied": score.tied,
        "best": score.best,
        "pareto": score.pareto,
    }


def _run_json(stages: Mapping[str, str], provenance: Mapping[str, Any]) -> dict[str, Any]:
    return {"stages": dict(stages), "provenance": dict(provenance)}
