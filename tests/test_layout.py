"""The shape of the code: where packages come from, who imports whom, how large things are."""

import ast
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("cluster", "harness", "methods", "results", "tasks")
MAY_IMPORT = {"cluster": {"harness", "methods", "results", "tasks"}, "harness": {"methods", "results", "tasks"}}
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
TREES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
SHAPELESS_NAMES = {"utils", "util", "common", "helpers", "helper", "misc"}
FORBIDDEN_CALLS = {"eval", "exec"}
PICKLING_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


def imported(tree: ast.AST) -> Iterator[str]:
    """Top-level names of all modules that a file imports, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").partition(".")[0]


def at_import_time(tree: ast.AST) -> Iterator[str]:
    """Top-level names of the modules that importing a file imports."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imported(ast.Module([node], []))
        yield from at_import_time(node)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_is_this_checkouts_and_has_one_owner(package):
    spec = find_spec(package)
    assert spec is not None
    assert Path(spec.origin) == ROOT / package / "__init__.py"
    assert set(packages_distributions()[package]) == {"weighin"}


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package):
    forbidden = set(PACKAGES) - MAY_IMPORT.get(package, set()) - {package}
    sources = {path: set(imported(tree)) for path, tree in TREES.items() if path.startswith(f"{package}/")}
    wrong = {path: names & forbidden for path, names in sources.items() if names & forbidden}
    assert not wrong


def test_ray_is_imported_in_cluster_only_and_lazily():
    users = {path for path, tree in TREES.items() if "ray" in imported(tree)}
    assert users
    assert all(path.startswith("cluster/") for path in users), users
    assert not [path for path in users if "ray" in at_import_time(TREES[path])]


def test_deepspeed_is_imported_in_one_file_of_harness_and_lazily():
    users = [path for path, tree in TREES.items() if "deepspeed" in imported(tree)]
    assert len(users) <= 1, users
    assert all(path.startswith("harness/") for path in users), users
    assert not [path for path in users if "deepspeed" in at_import_time(TREES[path])]


def test_results_know_no_torch():
    heavy = {"torch", "transformers", "datasets"}
    assert not [path for path, tree in TREES.items() if path.startswith("results/") and heavy & set(imported(tree))]


def test_files_are_small():
    lines = {path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert not {path: count for path, count in lines.items() if count > MAX_FILE_LINES}


def test_functions_are_small():
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    lengths = {
        f"{path}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, functions)
    }
    assert not {name: length for name, length in lengths.items() if length > MAX_FUNCTION_LINES}


def test_names_say_something():
    named = [path for path in TREES if SHAPELESS_NAMES & set(path.removesuffix(".py").split("/"))]
    assert not named


def test_tests_are_no_packages_and_have_names_of_their_own():
    files = sorted((ROOT / "tests").rglob("*.py"))
    assert not [path for path in files if path.name == "__init__.py"]
    names = [path.name for path in files if path.name != "conftest.py"]
    assert not {name for name in names if names.count(name) > 1}


def test_nothing_is_unpickled_or_evaluated():
    assert not [path for path, tree in TREES.items() if PICKLING_MODULES & set(imported(tree))]
    assert not [f"{path}:{call.lineno}" for path, tree in TREES.items() for call in calls(tree) if runs_data(call)]


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def runs_data(call: ast.Call) -> bool:
    """True for `eval`, `exec`, and a `torch.load` or `allow_pickle` that may run what a file says."""
    function = ast.unparse(call.func)
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    loads_anything = function == "torch.load" and given.get("weights_only") != "True"
    return function in FORBIDDEN_CALLS or loads_anything or given.get("allow_pickle", "False") != "False"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("eval(x)", True),
        ("model.eval()", False),
        ("torch.load(p)", True),
        ("torch.load(p, weights_only=True)", False),
        ("np.load(p, allow_pickle=True)", True),
    ],
)
def test_the_check_for_evaluation_sees(code, expected):
    assert runs_data(next(calls(ast.parse(code)))) is expected
