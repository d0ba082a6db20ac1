"""`check`, `new-method` and `methods --presets`; and a third party's wheel, installed and checked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import methods
from harness import authoring
from harness.cli import main
from harness.errors import SpecError
from harness.zero_check import zero_round_trip
from methods import conformance, tiny
from methods.conformance.bench import fill, prepare
from methods.layers.low_rank import LowRankLinear
from methods.svd import Svd

WHEEL = Path(__file__).parents[1] / "example_wheel"


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(*arguments):
    """Exit code of a command."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code or 0


def finding(status, check="sizes", teacher="gpt2", message=""):
    return conformance.Finding(check=check, teacher=teacher, status=status, message=message, seconds=0.5)


def test_a_report_groups_by_check_and_begins_with_what_failed(monkeypatch, capsys):
    found = [
        finding("passed"),
        finding("passed", teacher="llama"),
        finding("n/a", check="error", message="declared budgeted = False"),
        finding("passed", check="biases"),
        finding("failed", check="biases", teacher="llama", message="h.0 has no bias, " + "a long story " * 20 + "end"),
    ]
    monkeypatch.setattr(authoring, "_findings", lambda *arguments: found)
    assert authoring.check_method("svd", fast=True, as_json=False) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["check", "biases", "sizes", "error"]
    assert "failed on llama" in lines[1]
    assert lines[1].split()[-1] == "1.00"
    assert lines[4].startswith("failed  biases [llama]: h.0 has no bias, a long story")
    assert any(line.startswith("n/a  error [gpt2]: declared") for line in lines)
    assert lines[-1].startswith("svd: 4 of 5 checks hold on gpt2, llama; ")


def test_check_with_a_field_on_a_teacher_writes_findings(tmp_path, capsys):
    out = tmp_path / "findings.json"
    command = ["check", "svd", "--fast", "--field", "layers=odd", "--teacher", "llama", "--json", "-o", out]
    assert run(*command) == 0
    found = json.loads(out.read_text())
    assert {(each["teacher"], each["status"]) for each in found} == {("llama", "passed")}
    assert found[0].keys() == {"check", "teacher", "status", "message", "seconds"}
    assert sum(each["seconds"] for each in found) > 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["svvd"], "error: method 'svvd' is not known; did you mean 'svd'?"),
        (["svd", "--teacher", "lama"], "error: teacher 'lama' is no directory and no tiny teacher; did you mean"),
        (["svd", "--field", "layers"], "error: --field layers: write key=value, such as layers=odd"),
        (["svd", "--field", "layer=odd"], "error: svd: unknown field 'layer'; did you mean 'layers'?"),
        (["svd", "--field", "layers=[odd"], "error: --field layers: line 1"),
        (["svd", "--fast", "--teacher", "gpt2", "-o", "/no/such/file"], "error: --output /no/such/file: cannot be"),
    ],
)
def test_a_check_that_cannot_be_made_says_why_in_one_line(arguments, message, capsys):
    assert run("check", *arguments) == 2
    assert message in (error := capsys.readouterr().err)
    assert error.count("\n") == 1


def test_presets_are_listed_with_published_and_computed_counts(capsys):
    main_json = json.loads(output(capsys, "methods", "--presets", "--json"))
    assert {("kronecker", "krony-81m", "scales_folded", 81_972_576)} <= {
        (each["method"], each["preset"], each["rule"], each["computed"]) for each in main_json
    }
    assert [each for each in main_json if not each["equal"]] == []
    assert "81,972,576" in output(capsys, "methods", "--presets")


def output(capsys, *arguments):
    assert run(*arguments) == 0
    return capsys.readouterr().out


def test_a_new_method_conforms_as_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(methods, "__file__", str(tmp_path / "__init__.py"))
    assert "next: weighin check brand_new" in output(capsys, "new-method", "brand_new")
    spec = spec_from_file_location("methods.brand_new", tmp_path / "brand_new.py")
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "methods.brand_new", module)
    spec.loader.exec_module(module)
    conformance.assert_conforms(module.BrandNew())
    with pytest.raises(SpecError, match="exists already"):
        authoring.write_new_method("brand_new")
    with pytest.raises(SpecError, match="a method's name is a module's name"):
        authoring.write_new_method("Brand-New")


class Borrowing(LowRankLinear, kind="test_authoring.borrowing"):
    """Every second layer reads a factor of the one before, which ZeRO-3 has released by then."""

    lent = None

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.__dict__["borrowed"], Borrowing.lent = Borrowing.lent, self.left if Borrowing.lent is None else None

    def forward(self, x):
        y = super().forward(x)
        return y if self.borrowed is None else y + 0.01 * self.borrowed.sum()


class Stale(LowRankLinear, kind="test_authoring.stale"):
    """Keeps the dense weight of its first forward pass, whatever training does to the factors."""

    def forward(self, x):
        if "dense" not in self.__dict__:
            self.__dict__["dense"] = self.materialise().detach()
        return F.linear(x, self.dense, self.bias) + 0 * super().forward(x)


@dataclass(frozen=True, kw_only=True)
class Mutant(Svd):
    layer: str = "low_rank"

    def plan(self, teacher_config, budget):
        plan = super().plan(teacher_config, budget)
        return replace(plan, surgery={path: {**spec, "type": self.layer} for path, spec in plan.surgery.items()})


def problems(method):
    """What the ZeRO-3 check says on one student."""
    bench = prepare(method, tiny.find("gpt2"))
    fill(bench, (0.7,))
    return list(zero_round_trip(bench))


def test_a_zero_round_trip_is_exact():
    assert problems(Svd()) == []


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ("borrowing", "at params=0.7 training fails under ZeRO-3 alone"),
        ("stale", "the student trained under ZeRO-3 computes other logits once saved and loaded"),
    ],
)
def test_a_layer_that_zero_breaks_is_caught(layer, words):
    assert words in " ".join(problems(Mutant(layer=f"test_authoring.{layer}")))


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The example wheel, built and installed offline into a directory of its own."""
    root = tmp_path_factory.mktemp("wheel")
    shutil.copytree(WHEEL, root / "source", ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", root / "target", root / "source"]
    subprocess.run(command, check=True, capture_output=True, timeout=280)
    return root


def python(installed, *arguments):
    environment = os.environ | {"PYTHONPATH": str(installed / "target"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, env=environment, cwd=installed / "source", capture_output=True, text=True, timeout=280, check=False
    )


@pytest.mark.sweep
@pytest.mark.timeout(300)
def test_an_installed_wheels_method_is_checked_by_name(installed):
    ended = python(installed, "-m", "harness", "check", "block_low_rank", "--fast")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "checks hold on gpt2, llama-untied" in ended.stdout


@pytest.mark.sweep
@pytest.mark.timeout(300)
def test_an_installed_wheels_own_suite_passes(installed):
    ended = python(installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "5 passed" in ended.stdout
