"""YAML in which each key is a word and stands once: shared by the files that people write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from yaml import SafeLoader as Constructor
else:
    Constructor = object


class UniqueKeys(Constructor):
    """Mixed into one of PyYAML's safe loaders: a repeated key, or one that is no word, is a ConstructorError."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if not isinstance(name, str):
                raise yaml.constructor.ConstructorError(None, None, f"key {name!r} is not a word", key.start_mark)
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"repeated key {name!r}", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)
