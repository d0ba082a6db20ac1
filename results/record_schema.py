"""The record's JSON Schema, with what each field is: made from the classes and the texts under their fields."""

from __future__ import annotations

import ast
import inspect
import json
from typing import Any

from results import record, speed_card
from results.record import SCHEMA, Record

FILE = f"schema/record.v{SCHEMA}.json"
"""In `results/`; `weighin schema --record` prints the same."""
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def record_schema() -> dict[str, Any]:
    """The schema that a record of this version follows."""
    schema = Record.model_json_schema()
    described = {**_described(record), **_described(speed_card)}
    parts = {"Record": schema, **schema["$defs"]}
    for name, part in parts.items():
        for field, text in described[name].items():
            part["properties"][field].setdefault("description", text)
            part["properties"][field].pop("title", None)
    schema["properties"]["schema_version"] = {
        "const": SCHEMA, "type": "integer", "description": described["Record"]["schema_version"]
    }  # fmt: skip
    required = ["schema_version", *schema["required"]]
    head = {"$schema": DIALECT, "$id": f"urn:weighin:record:v{SCHEMA}"}
    return {**head, **schema, "title": f"weighin record, schema {SCHEMA}", "required": required}


def dumps() -> str:
    """The schema as the text of its file."""
    return json.dumps(record_schema(), indent=1, ensure_ascii=False) + "\n"


def _described(module: Any) -> dict[str, dict[str, str]]:
    """Class -> field -> the text under it."""
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ClassDef):
            texts = found.setdefault(node.name, {})
            for first, second in zip(node.body, node.body[1:], strict=False):
                if isinstance(first, ast.AnnAssign) and isinstance(first.target, ast.Name):
                    text = second.value if isinstance(second, ast.Expr) else None
                    if isinstance(text, ast.Constant) and isinstance(text.value, str):
                        texts[first.target.id] = inspect.cleandoc(text.value)
    return found
