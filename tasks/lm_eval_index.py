"""The tasks, groups and tags that lm-eval ships, found by name without importing it.

lm-eval's own index parses 14,000 YAML files in ten seconds. Here only the lines that name things are read (`task`,
`group`, `tag`, `class`, `include`), which takes a fraction of one; the files of what is asked for are then parsed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import yaml

from tasks.interface import DataError

Kind = Literal["task", "python task", "group", "tag"]
Config = dict[str, Any]
Header = Mapping[str, Sequence[str]]
"""A naming key of a YAML file -> its value, or the values of its list."""

GROUP_KEYS = frozenset({"group", "group_alias", "task", "aggregate_metric_list", "metadata"})
"""What a group says of itself; its other keys are set in all its tasks."""
NAMING_KEYS = frozenset({"tag", "group", "task_list"})
"""What a task says of its place among others."""

_LINES = re.compile(r"^[\"']?(task|group|tag|class|include)[\"']?:[ \t]*(.*(?:\n[ \t]*-[ \t].*)*)", re.MULTILINE)
_WORD = re.compile(r"^[ \t]*(?:-[ \t]+)?([^\s#-].*?)[ \t]*(?:[ \t]#.*)?$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What a name of lm-eval stands for."""

    name: str
    kind: Kind
    file: str = ""
    """Its YAML file; a tag has none."""
    members: Sequence[str] = ()
    """The tasks that have the tag, sorted."""

    @property
    def summary(self) -> str:
        """`task, glue/sst2/default.yaml`; `tag of 9 tasks`."""
        if not self.file:
            return f"tag of {len(self.members)} tasks"
        return f"{self.kind}, {Path(self.file).relative_to(root()).as_posix()}"


@dataclass(frozen=True, kw_only=True)
class Leaf:
    """One task, configured as the groups on the way to it say."""

    name: str
    config: Config


def installed() -> str:
    """lm-eval's version."""
    return version("lm_eval")


@cache
def root() -> Path:
    """The folder of lm-eval's tasks."""
    spec = find_spec("lm_eval")
    assert spec is not None, "lm-eval is a dependency"
    assert spec.origin is not None
    return Path(spec.origin).parent / "tasks"


def find(name: str) -> Entry:
    """The entry called `name`; `DataError` naming the nearest one when lm-eval has none."""
    known = index()
    if name not in known:
        close = get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "`weighin tasks --lm-eval` lists them"
        raise DataError(f"lm-eval {installed()} has no task, group or tag called {name!r}; {hint}")
    return known[name]


def matching(pattern: str) -> list[Entry]:
    """Entries whose name has `pattern` in it, or matches it where it has one of `*?[`; `DataError` when none does."""
    glob = pattern if set(pattern) & set("*?[") else f"*{pattern}*"
    found = [entry for name, entry in sorted(index().items()) if fnmatchcase(name, glob)]
    return found or [find(pattern)]


@cache
def index() -> Mapping[str, Entry]:
    """Every name; of files that give the same one, the first by path counts, as in lm-eval."""
    found: dict[str, Entry] = {}
    tagged: dict[str, set[str]] = {}
    for file in sorted(_yaml_files()):
        header = _header(file)
        name, kind = _named(header)
        if not name or name in found:
            continue
        found[name] = Entry(name=name, kind=kind, file=file)
        for tag in header.get("tag", ()) if kind != "group" else ():
            tagged.setdefault(tag, set()).add(name)
    for tag, members in tagged.items():
        found.setdefault(tag, Entry(name=tag, kind="tag", members=tuple(sorted(members))))
    return MappingProxyType(found)


def read(path: Path) -> Config:
    """A YAML file over those that it includes; `!function` stays text, so that no code runs."""
    with path.open("rb") as stream:
        own: Config = yaml.load(stream, _Text)
    included = own.pop("include", [])
    merged: Config = {}
    for name in included if isinstance(included, list) else [included]:
        merged |= {key: value for key, value in read(path.parent / name).items() if key != "task_list"}
    return merged | own


def parts(entry: Entry) -> Sequence[str]:
    """The names that a tag or group lists; `DataError` for a group that sets up its members itself."""
    if entry.kind == "tag":
        return entry.members
    group = read(Path(entry.file))
    if set(group) - GROUP_KEYS - NAMING_KEYS or not all(name in index() for name in map(str, group["task"])):
        raise DataError(f"lm-eval's group {entry.name} has no score and sets up its tasks itself: name them one by one")
    return list(group["task"])


def leaves(
    entry: Entry, load: Callable[[Path], Config] = read, overrides: Mapping[str, Any] = MappingProxyType({})
) -> Iterator[Leaf]:
    """The tasks below an entry in lm-eval's order; what a group sets takes the place of what they say themselves."""
    if entry.kind == "tag":
        for name in entry.members:
            yield from leaves(find(name), load, overrides)
    elif entry.kind == "group":
        yield from _members(load(Path(entry.file)), load, overrides)
    else:
        config = {k: v for k, v in load(Path(entry.file)).items() if k not in NAMING_KEYS}
        yield Leaf(name=entry.name, config={**config, **overrides, "task": entry.name})


def _members(group: Config, load: Callable[[Path], Config], overrides: Mapping[str, Any]) -> Iterator[Leaf]:
    """The tasks that a group lists, by name or as a group written out in place."""
    outer = {k: v for k, v in group.items() if k not in GROUP_KEYS | NAMING_KEYS} | dict(overrides)
    for listed in group["task"]:
        member = {"task": listed} if isinstance(listed, str) else listed
        name: Any = member.get("group") or member.get("task")
        if "group" in member and name not in index():
            yield from _members(member, load, outer)
            continue
        if name not in index() or _renames(member):
            raise DataError(
                f"lm-eval's group {group['group']} leaves tasks without a name of their own: name its tasks"
            )
        own = {k: v for k, v in member.items() if k not in ("group", "task")}
        yield from leaves(find(name), load, {**outer, **own})


def _renames(member: Mapping[str, Any]) -> bool:
    """True where lm-eval would call every task below a listed tag or group by the tag's or the group's own name."""
    if "group" in member or len(member) == 1:
        return isinstance(member.get("task"), list)
    return find(member["task"]).kind in ("tag", "group")


class _Text(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Loads lm-eval's YAML as plain data."""


_Text.add_constructor("!function", lambda loader, node: f"!function {loader.construct_scalar(node)}")


def _yaml_files() -> Iterator[str]:
    for folder, folders, files in os.walk(root()):
        folders[:] = [name for name in folders if name not in ("__pycache__", ".ipynb_checkpoints")]
        yield from (os.path.join(folder, name) for name in files if name.endswith(".yaml"))


def _named(header: Header) -> tuple[str, Kind]:
    kind: Kind = "python task" if "class" in header else "group" if "group" in header else "task"
    names = header.get("group" if kind == "group" else "task", ())
    return (names[0] if len(names) == 1 else ""), kind


@cache
def _header(file: str) -> Header:
    """The naming lines of a file over those of the files that it includes."""
    try:
        with open(file, encoding="utf-8") as stream:
            text = stream.read()
    except OSError:
        return {}
    own = {key: [word.strip("'\"") for word in _WORD.findall(value)] for key, value in _LINES.findall(text)}
    merged: dict[str, Sequence[str]] = {}
    for name in own.pop("include", ()):
        merged |= _header(os.path.normpath(os.path.join(os.path.dirname(file), name)))
    return merged | own
