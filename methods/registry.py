"""Finding methods by name: one file each in `methods/`, or the entry-point group `weighin.methods`.

Names and summaries are read from the syntax tree, so that listing imports neither a method nor torch.
"""

from __future__ import annotations

import ast
from functools import lru_cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from methods.interface import Method, MethodError
from methods.spelling import nearest

GROUP = "weighin.methods"


def names() -> list[str]:
    """Every method that can be asked for, sorted."""
    return sorted(_targets())


def resolve(name: str) -> str:
    """`module:Class` of a method.

    Raises:
        MethodError: there is no method of that name.
    """
    targets = _targets()
    if name not in targets:
        raise MethodError(f"method {name!r} is not known{nearest(name, targets)}")
    return targets[name]


def load(name: str) -> type[Method]:
    """Import a method.

    Raises:
        MethodError: there is no method of that name, or its file does not import.
    """
    module, _, attribute = resolve(name).partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, SyntaxError, AttributeError, NameError, TypeError, ValueError) as error:
        raise MethodError(f"method {name!r} does not import ({module}): {type(error).__name__}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise MethodError(f"method {name!r}: {module}:{attribute} is not a Method")
    return found


def summary(name: str) -> str:
    """The first line of the method's docstring, without importing it; empty when it has none."""
    module, _, attribute = resolve(name).partition(":")
    spec = find_spec(module) if "." not in module or module.startswith("methods.") else None
    if spec is None or spec.origin is None:
        return ""
    tree = _parse(Path(spec.origin))
    wanted = [node for node in _classes(tree) if node.name == attribute] if tree else []
    return (ast.get_docstring(wanted[0]) or "").partition("\n")[0] if wanted else ""


def _targets() -> dict[str, str]:
    """Name -> `module:Class`; a built-in wins over an entry point of the same name."""
    installed = {point.name: point.value for point in entry_points(group=GROUP)}
    return installed | _built_in(Path(__file__).parent)


def _built_in(directory: Path) -> dict[str, str]:
    """Methods defined in a directory's files; a file that does not parse is listed, so that loading it says why.

    A class that also names `ABC` as a base is no method but what several methods share.
    """
    trees = {file.stem: _parse(file) for file in sorted(directory.glob("*.py"))}
    classes = {stem: _classes(tree) if tree else None for stem, tree in trees.items()}
    shared = {node.name for nodes in classes.values() for node in nodes or () if {"Method", "ABC"} <= _bases(node)}
    found = {}
    for stem, nodes in classes.items():
        names = [n.name for n in nodes if _bases(n) & {"Method", *shared} and "ABC" not in _bases(n)] if nodes else []
        if names or nodes is None:
            found[stem] = f"methods.{stem}:{names[0] if names else ''}"
    return found


@lru_cache(maxsize=256)
def _parse_text(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except SyntaxError:
        return None


def _parse(file: Path) -> ast.Module | None:
    return _parse_text(file.read_text(encoding="utf-8"))


def _classes(tree: ast.Module) -> list[ast.ClassDef]:
    return [node for node in tree.body if isinstance(node, ast.ClassDef)]


def _bases(node: ast.ClassDef) -> set[str]:
    return {base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "") for base in node.bases}
