"""The digest of the code that computes a stage: a module of ours and everything of ours that it imports."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from harness.errors import SpecError

PACKAGES = frozenset({"cluster", "harness", "methods", "results", "tasks"})
"""Top-level packages whose source is part of an identity."""

_SILENT_FIELDS = frozenset({"ctx", "kind", "type_comment"})


def code_digest(module: str) -> str:
    """sha256 (hex) over the names and digests of `digest_parts(module)`.

    Comments, docstrings and layout do not count, nor does the interpreter (Python 3.11 to 3.14) or where the packages
    are installed. Raises `SpecError` when a module has no Python source.
    """
    lines = (f"{name} {digest}\n" for name, digest in sorted(_parts(module)))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def digest_parts(module: str) -> dict[str, str]:
    """Module name -> sha256 of its source, for `module` and what it imports, transitively.

    Only our five packages and the top-level package of `module` itself (a third party's plug-in) are followed; the
    `__init__` of every package on the way is included. Imports anywhere in the file count, except those under
    `if TYPE_CHECKING:`; names imported from strings do not.
    """
    return dict(_parts(module))


@cache
def _parts(module: str) -> tuple[tuple[str, str], ...]:
    followed = PACKAGES | {module.partition(".")[0]}
    if _locate(module) is None:
        raise SpecError(f"{module}: no Python source to digest")
    found: dict[str, str] = {}
    waiting = [*_parents(module), module]
    while waiting:
        name = waiting.pop()
        path = None if name in found else _locate(name)
        if path is None:
            continue
        found[name], imports = _read(path, name)
        waiting += (each for each in imports if each.partition(".")[0] in followed)
    return tuple(sorted(found.items()))


def _locate(module: str) -> Path | None:
    """The file of a module, found without importing anything; None when it is not a module with source."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        return None
    if not rest and spec.origin is not None:
        return Path(spec.origin) if spec.origin.endswith(".py") else None
    for root in spec.submodule_search_locations or ():
        base = Path(root, *rest)
        for path in (base / "__init__.py", base.with_name(base.name + ".py")):
            if path.is_file():
                return path
    return None


@cache
def _read(path: Path, module: str) -> tuple[str, frozenset[str]]:
    tree = ast.parse(path.read_bytes(), filename=module)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    text = "".join(_dump(tree))
    return hashlib.sha256(text.encode()).hexdigest(), frozenset(_imports(tree, package))


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Every name that the code may import as a module, with its parent packages."""
    for node in _running(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            yield from _parents(name)
            yield name


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    base = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)


def _parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a tree that can run: all but those only a type checker sees."""
    yield node
    hidden = node.body if isinstance(node, ast.If) and _is_type_checking(node.test) else []
    for child in ast.iter_child_nodes(node):
        if child not in hidden:
            yield from _running(child)


def _is_type_checking(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else test.id if isinstance(test, ast.Name) else ""
    return name == "TYPE_CHECKING"


def _dump(node: ast.AST) -> Iterator[str]:
    """A canonical text of a tree: node types, and fields that are not empty, in the order of their names.

    `ast.dump` is not used: it differs between Python versions.
    """
    yield f"({type(node).__name__}"
    hidden = isinstance(node, ast.If) and _is_type_checking(node.test)
    for name in sorted(node._fields):
        value = getattr(node, name, None)
        if name in _SILENT_FIELDS or (hidden and name == "body"):
            continue
        if isinstance(node, ast.Constant):
            yield f" {_constant(value)}"
        elif isinstance(value, list):
            items = _pieces(value) if isinstance(node, ast.JoinedStr) else [v for v in value if not _is_remark(v)]
            if items:
                yield f" {name}=["
                yield from _dump_all(items)
                yield "]"
        elif value is not None:
            yield f" {name}="
            yield from _dump_all([value])
    yield ")"


def _dump_all(values: Iterable[object]) -> Iterator[str]:
    for value in values:
        if isinstance(value, ast.AST):
            yield from _dump(value)
        else:
            yield f" {_constant(value)}"


def _constant(value: object) -> str:
    """`ascii`, not `repr`: which characters `repr` escapes depends on the interpreter's Unicode version."""
    return f"{type(value).__name__}:{value!a}"


def _is_remark(value: object) -> bool:
    """A docstring, or any other string that stands alone as a statement."""
    return isinstance(value, ast.Expr) and isinstance(value.value, ast.Constant) and isinstance(value.value.value, str)


def _pieces(values: list[ast.expr]) -> list[ast.expr]:
    """The parts of an f-string with neighbouring texts joined and empty ones dropped; parsers cut them differently."""
    merged: list[ast.expr] = []
    for value in values:
        last = merged[-1] if merged else None
        if not isinstance(value, ast.Constant):
            merged.append(value)
        elif isinstance(last, ast.Constant):
            merged[-1] = ast.Constant(str(last.value) + str(value.value))
        elif value.value:
            merged.append(value)
    return merged
