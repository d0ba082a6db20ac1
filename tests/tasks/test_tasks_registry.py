from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from tasks import registry
from tasks.glue import Cola
from tasks.interface import Classification, DataError, Protocol

GLUE = {f"glue.{task}.v1" for task in ["cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli"]}
WIKITEXT = {
    "wikitext2.lm_eval.v1",
    "wikitext2.token_ppl.v1",
    "wikitext2_16k.token_ppl.v1",
    "wikitext2_blocks.token_ppl.v1",
    "wikitext2v1.token_ppl.v1",
}


def test_names_are_sorted_and_complete():
    names = registry.names()
    assert list(names) == sorted(names)
    assert set(names) >= GLUE | WIKITEXT


def test_listing_imports_no_task_and_nothing_heavy():
    code = (
        "import sys; from tasks import registry; registry.names();"
        "heavy = {'torch', 'datasets', 'transformers', 'numpy', 'tasks.glue', 'tasks.wikitext'} & set(sys.modules);"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", registry.names())
def test_every_task_loads_under_its_name_with_a_main_metric(name: str):
    task = registry.load(name)
    assert isinstance(task, Protocol | Classification)
    assert task.name == name
    assert task.metrics


def test_resolve_names_module_and_class_and_load_takes_it():
    target = registry.resolve("glue.cola.v1")
    assert target == "tasks.glue:Cola"
    assert isinstance(registry.load(target), Cola)


def test_unknown_name_names_the_nearest():
    with pytest.raises(DataError, match=r"no task is called 'glue\.colla\.v1'; did you mean 'glue\.cola\.v1'\?"):
        registry.load("glue.colla.v1")


def test_entry_points_add_tasks(monkeypatch: pytest.MonkeyPatch):
    point = EntryPoint("foreign.token_ppl.v1", "tasks.glue:Cola", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda *, group: [point] if group == "weighin.tasks" else [])
    assert registry.resolve("foreign.token_ppl.v1") == "tasks.glue:Cola"
    assert "foreign.token_ppl.v1" in registry.names()
