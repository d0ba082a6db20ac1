"""`check-task` and `new-task`."""

from __future__ import annotations

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from micro_sweep import weighin

import tasks
from tasks import registry

NAME = "words.token_ppl.v1"
BROKEN = """
from third_party import WordPerplexity


class NotWords:
    name = "not_a_task.token_ppl.v1"


class Unversioned(WordPerplexity):
    name = "words.token_ppl"
"""


def add_entry_points(directory: Path, *lines: str) -> None:
    information = directory / "more-1.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: more\nVersion: 1\n")
    (information / "entry_points.txt").write_text("\n".join(["[weighin.tasks]", *lines, ""]))


@pytest.fixture
def more(plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another distribution, with tasks that are wrong."""
    (tmp_path / "more_tasks.py").write_text(BROKEN)
    add_entry_points(
        tmp_path,
        "unversioned.token_ppl.v1 = more_tasks:Unversioned",
        "not_a_task.token_ppl.v1 = more_tasks:NotWords",
        "absent.token_ppl.v1 = no_such_module:Task",
        "nameless.token_ppl.v1 = more_tasks:Absent",
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "more_tasks", raising=False)


def test_another_distributions_task_is_checked_by_name(plugin: Path, tmp_path: Path) -> None:
    golden = tmp_path / "golden.json"
    ended = weighin("check-task", NAME, "--golden", golden)
    assert ended.code == 0, ended
    assert "check  " in ended.out
    assert f"{NAME}: 12 of 12 checks hold on its own data; " in ended.out
    assert list(json.loads(golden.read_text())) == [NAME]
    found = weighin("check-task", NAME, "--golden", golden, "--json")
    assert found.code == 0
    assert {each["status"] for each in found.data} == {"passed"}
    assert found.data[0].keys() == {"check", "on", "status", "message", "seconds"}


@pytest.mark.usefixtures("more")
def test_what_is_wrong_is_said_and_ends_with_1(tmp_path: Path) -> None:
    out = tmp_path / "findings.txt"
    ended = weighin("check-task", "unversioned.token_ppl.v1", "-o", out)
    assert (ended.code, ended.out) == (1, "")
    lines = out.read_text().splitlines()
    assert lines[1].split()[:4] == ["its", "name", "is", "versioned"]
    assert "failed on its own data" in lines[1]
    assert any(line.startswith("failed  its name is versioned [its own data]: its name is 'words") for line in lines)


@pytest.mark.usefixtures("more")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["words.token_ppl.v2"], "error: no task is called 'words.token_ppl.v2'; did you mean 'words.token_ppl.v1'?"),
        (["absent.token_ppl.v1"], "error: task 'absent.token_ppl.v1' does not load (no_such_module): ModuleNotFound"),
        (["nameless.token_ppl.v1"], "error: task 'nameless.token_ppl.v1' does not load (more_tasks): AttributeError"),
        (["not_a_task.token_ppl.v1"], "error: task 'not_a_task.token_ppl.v1': more_tasks:NotWords is not a Task"),
        (["glue.cola.v1", "--mirror", "/nowhere"], "error: data set nyu-mll/glue, config cola, split train: not in"),
        ([NAME, "-o", "/no/such/file"], "error: --output /no/such/file: cannot be"),
    ],
)
def test_a_check_that_cannot_be_made_says_why_in_one_line(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    ended = weighin("check-task", *arguments)
    assert ended.code == 2
    assert message in ended.err
    assert ended.err.count("\n") == 1


def test_a_file_of_outputs_that_is_none_is_refused(plugin: Path, tmp_path: Path) -> None:
    golden = tmp_path / "golden.json"
    golden.write_text("[]")
    ended = weighin("check-task", NAME, "--golden", golden)
    assert (ended.code, ended.err) == (2, f"error: --golden {golden}: is not a JSON object of outputs by task\n")


def test_a_new_task_conforms_once_its_text_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "__file__", str(tmp_path / "tasks" / "__init__.py"))
    (tmp_path / "tasks").mkdir()
    made = weighin("new-task", "house_style")
    assert (made.code, "next: weighin check-task house_style.token_ppl.v1" in made.out) == (0, True)
    spec = spec_from_file_location("tasks.house_style", tmp_path / "tasks" / "house_style.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "tasks.house_style", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(registry, "_targets", lambda: {"house_style.token_ppl.v1": "tasks.house_style:HouseStyle"})
    (tmp_path / "house_style.txt").write_text("Say what is.\n\nLeave out what is not.\n" * 40)
    ended = weighin("check-task", "house_style.token_ppl.v1", "--mirror", tmp_path)
    assert (ended.code, ended.err) == (0, ""), ended
    assert "exists already" in weighin("new-task", "house_style").err
    assert "a task's file is a module" in weighin("new-task", "House-Style").err
