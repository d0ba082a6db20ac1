"""YAML read strictly: `1e-4` is a number, `no` is a word, a repeated key is an error."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from harness.errors import SpecError
from results.unique_keys import UniqueKeys

_FLOAT = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$")
_BOOL = re.compile(r"^(true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"^[-+]?[0-9]+$")


class StrictLoader(UniqueKeys, yaml.SafeLoader):
    """SafeLoader with YAML 1.2's numbers and booleans that refuses a repeated key."""


def _integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(node.value)


StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in pairs if tag == "tag:yaml.org,2002:null"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
StrictLoader.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOL, list("tTfF"))
StrictLoader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
StrictLoader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
StrictLoader.add_constructor("tag:yaml.org,2002:int", _integer)


def parse(text: str, where: str) -> Any:
    """Plain data from YAML text; SpecError with line and column on a mistake."""
    try:
        data = yaml.load(text, StrictLoader)
        json.dumps(data)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise SpecError(f"{where}: {place}{error.problem}") from error
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise SpecError(f"{where}: {error}") from error
    return data


def read(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; SpecError when it is absent, unreadable or not a mapping."""
    try:
        data = parse(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not isinstance(data, dict):
        kind = "empty" if data is None else f"a {type(data).__name__}"
        raise SpecError(f"{path}: a sweep is a YAML mapping (key: value); this file is {kind}")
    return data


class StrictDumper(yaml.SafeDumper):
    """SafeDumper that quotes every text that `StrictLoader` or a YAML 1.1 reader would take for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


StrictDumper.yaml_implicit_resolvers = {
    first: [
        *StrictLoader.yaml_implicit_resolvers.get(first, ()),
        *yaml.SafeDumper.yaml_implicit_resolvers.get(first, ()),
    ]
    for first in {*StrictLoader.yaml_implicit_resolvers, *yaml.SafeDumper.yaml_implicit_resolvers}
}


def dump(data: Any) -> str:
    """YAML text that `parse` reads as the same plain data; short mappings and lists stand on one line."""
    return str(yaml.dump(data, Dumper=StrictDumper, sort_keys=False, default_flow_style=None, width=110))
