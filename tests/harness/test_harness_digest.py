"""The digest follows the code that runs, and nothing else."""

import ast
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness import digest
from harness.errors import SpecError

FIXTURE = {
    "__init__": '"""A package."""\n',
    "stage": "from plugin_kit import low\n\n\ndef run(x):\n    from . import late\n    return low.f(x) + late.g(x)\n",
    "low": "import math\n\n\ndef f(x):\n    return math.sqrt(x)\n",
    "late": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from plugin_kit import unseen\n\n\n"
    "def g(x):\n    return x\n",
    "unseen": "VALUE = 1\n",
    "apart": "VALUE = 2\n",
    "syntax": '''"""Forms that parsers of different versions cut differently."""
import os.path as p

A = f"{{a}}" "b" f"{p.sep!r:>{3}}c{A if 0 else 1=}" u"\\U0001fae8 \\u0378" f""


class C:
    """Doc."""
    x: int = 0o17; y = 1e400; z = 1j; b = rb"\\x00"; w = ...

    async def m(self, a, /, b=None, *c, d, e=-0.0, **f):
        "doc"
        # comment
        try:
            return [i async for i in a if (n := i)] or {**f, "k": lambda *_: (yield)}
        except* (OSError, ValueError) as error:
            raise RuntimeError from error
        finally:
            match b:
                case {"k": [1, *_], **rest} | C(x=3) as whole if rest:
                    del whole
                case None:
                    pass
''',
}
GOLDEN = "7640a2db35ce9374eb8e3cf4be9e7b0b6eef386c8371978b3d7b3a0295bd8e22"


def package(root: Path, **changes: str) -> Path:
    """Write the fixture package under `root`, some files changed."""
    folder = root / "plugin_kit"
    folder.mkdir(parents=True)
    for name, text in (FIXTURE | changes).items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return root


def digest_in(root: Path, module: str, monkeypatch: pytest.MonkeyPatch) -> str:
    with monkeypatch.context() as patch:
        patch.syspath_prepend(root)
        digest._parts.cache_clear()
        return digest.code_digest(module)


@pytest.fixture
def original(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    return digest_in(package(tmp_path / "original"), "plugin_kit.stage", monkeypatch)


@pytest.mark.parametrize(
    "changes",
    [
        {"low": 'import math\n"""Other words."""\n\ndef f(x):  # why\n    "doc"\n    return math.sqrt( x )\n'},
        {"__init__": ""},
        {"unseen": "VALUE = 3\n"},
        {"apart": "VALUE = 3\n"},
    ],
    ids=["words", "package docstring", "type checking only", "not imported"],
)
def test_is_kept_by_what_does_not_run(changes, original, tmp_path, monkeypatch):
    assert digest_in(package(tmp_path / "changed", **changes), "plugin_kit.stage", monkeypatch) == original


@pytest.mark.parametrize(
    "changes",
    [
        {"low": FIXTURE["low"].replace("math.sqrt(x)", "math.sqrt(x + 1)")},
        {"late": FIXTURE["late"].replace("return x", "return -x")},
        {"__init__": "VALUE = 1\n"},
        {"stage": FIXTURE["stage"].replace("late.g(x)", "late.g(0)")},
        {"low": FIXTURE["low"].replace("math.sqrt(x)", "'text'")},
    ],
    ids=["imported", "imported in a function", "package", "itself", "a string that is returned"],
)
def test_changes_with_the_code(changes, original, tmp_path, monkeypatch):
    assert digest_in(package(tmp_path / "changed", **changes), "plugin_kit.stage", monkeypatch) != original


def test_parts_name_the_modules(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(package(tmp_path))
    digest._parts.cache_clear()
    parts = digest.digest_parts("plugin_kit.stage")
    assert sorted(parts) == ["plugin_kit", "plugin_kit.late", "plugin_kit.low", "plugin_kit.stage"]
    empty_module = hashlib.sha256(b"(Module)").hexdigest()
    assert parts["plugin_kit"] == empty_module
    lines = "".join(f"{name} {part}\n" for name, part in sorted(parts.items()))
    assert digest.code_digest("plugin_kit.stage") == hashlib.sha256(lines.encode()).hexdigest()
    assert "plugin_kit" not in sys.modules


def test_a_method_is_made_of_our_modules_alone():
    parts = digest.digest_parts("methods.interface")
    assert sorted(parts) == ["methods", "methods.interface", "methods.recipe"]


def test_a_module_without_source_is_refused():
    with pytest.raises(SpecError, match=r"methods\.nowhere: no Python source"):
        digest.code_digest("methods.nowhere")


def test_the_whole_project_takes_as_long_as_parsing_it_a_few_times():
    root = Path(digest.__file__).parent.parent
    paths = list(root.glob("[!.]*/**/*.py"))
    names = [".".join(path.relative_to(root).with_suffix("").parts) for path in paths]
    ours = [name.removesuffix(".__init__") for name in names if name.partition(".")[0] in digest.PACKAGES]
    digest._read.cache_clear()
    digest._parts.cache_clear()
    started = time.process_time()
    digests = {name: digest.code_digest(name) for name in ours}
    between = time.process_time()
    for path in paths:
        ast.parse(path.read_bytes())
    assert between - started < 10 * (time.process_time() - between)
    # The kits' packages import all their modules, so that each rests on all of them.
    one_closure = ("methods.conformance.", "tasks.conformance.")
    apart = [value for name, value in digests.items() if not name.startswith(one_closure)]
    assert len(set(apart)) == len(apart)


def test_golden(tmp_path, monkeypatch):
    assert digest_in(package(tmp_path), "plugin_kit.syntax", monkeypatch) == GOLDEN


def other_pythons() -> list[str]:
    """One interpreter of each other supported version found on this machine."""
    found = {}
    for minor in (11, 12, 13, 14):
        managed = sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python"))
        on_path = shutil.which(f"python3.{minor}")
        for python in (*map(str, managed), on_path):
            if python and minor != sys.version_info.minor and _runs(python, minor):
                found.setdefault(minor, python)
    return list(found.values())


def _runs(python: str, minor: int) -> bool:
    asked = subprocess.run([python, "-c", "import sys; print(sys.version_info[1])"], capture_output=True, text=True)
    return asked.stdout.strip() == str(minor)


def test_is_the_same_under_other_interpreters(tmp_path):
    pythons = other_pythons()
    if not pythons:
        pytest.skip("no other Python 3.11-3.14 on this machine")
    root = Path(digest.__file__).parent.parent
    code = "import sys; from harness.digest import code_digest; print(code_digest(sys.argv[1]))"
    for module in ("plugin_kit.syntax", "harness.digest", "methods.interface"):
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), str(package(tmp_path / module))])}
        answers = {
            python: subprocess.check_output([python, "-c", code, module], env=environment, cwd=tmp_path, text=True)
            for python in (sys.executable, *pythons)
        }
        assert len(set(answers.values())) == 1, answers
