"""Finding methods without importing them."""

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from methods import registry
from methods.interface import Method, MethodError

BUILT_IN = {
    "asvd", "distilgpt2", "dsee", "embedding_svd", "fwsvd", "identity", "kronecker", "svd", "svd_llm", "tensor_gpt",
    "tensor_train", "tq", "truncation",
}  # fmt: skip


def test_lists_and_loads_every_method():
    assert set(registry.names()) >= BUILT_IN
    assert "low_rank" not in registry.names(), "what several methods share is no method"
    for name in BUILT_IN:
        assert issubclass(registry.load(name), Method)
        assert registry.load(name).__doc__.startswith(registry.summary(name))
        assert registry.summary(name).endswith(".")


def test_listing_imports_neither_methods_nor_torch():
    code = """
import sys
from methods import registry
[registry.summary(name) for name in registry.names()]
loaded = {"torch", "transformers", "pandas", "methods.svd", "methods.student"} & set(sys.modules)
sys.exit(f"imported {loaded}" if loaded else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_planning_and_families_need_no_transformers_at_import():
    code = "import sys, methods.families, methods.fields; sys.exit(int('torch' in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(MethodError, match=r"'kroneker' is not known; did you mean 'kronecker'\?"):
        registry.resolve("kroneker")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import nowhere_to_be_found\nclass A(Method): ...", "No module named 'nowhere_to_be_found'"),
        ("class A(Method:\n", "SyntaxError"),
        ("class A(Method): ...", "NameError: name 'Method' is not defined"),
    ],
)
def test_a_broken_file_is_listed_and_says_why(text, reason, tmp_path, monkeypatch):
    import methods

    (tmp_path / "broken_one.py").write_text(text)
    found = registry._built_in(tmp_path)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    monkeypatch.setattr(registry, "_targets", lambda: found)
    assert registry.names() == ["broken_one"]
    assert registry.summary("broken_one") == ""
    with pytest.raises(MethodError) as error:
        registry.load("broken_one")
    assert "methods.broken_one" in str(error.value)
    assert reason in str(error.value)


def test_entry_points_are_methods_too(monkeypatch):
    point = EntryPoint(name="theirs", value="methods.identity:Identity", group=registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    assert "theirs" in registry.names()
    assert registry.load("theirs") is registry.load("identity")


def test_something_else_than_a_method_is_refused(monkeypatch):
    monkeypatch.setattr(registry, "_targets", lambda: {"odd": "methods.interface:Budget"})
    with pytest.raises(MethodError, match="is not a Method"):
        registry.load("odd")
