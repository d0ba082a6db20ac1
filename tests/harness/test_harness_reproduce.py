"""A row made again from its record, and its checkpoint evaluated again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from micro_sweep import Ended, board_rows, sweep, weighin, write, write_plugin
from safetensors.torch import load_file, save_file

from harness import digest, verify
from harness.spec import load_sweep
from results.record import Record
from results.store import Store, sha256

pytestmark = pytest.mark.sweep


@dataclass(frozen=True)
class Ran:
    """A finished run of one row."""

    store: Path

    @property
    def file(self) -> Path:
        (found,) = (self.store / "records").glob("*.json")
        return found

    @property
    def record(self) -> Record:
        return Record.model_validate_json(self.file.read_text())

    def edit(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Tamper with the record."""
        data = json.loads(self.file.read_text())
        change(data)
        self.file.write_text(json.dumps(data))

    def artifact(self, stage: str, key: str) -> Path:
        manifest = json.loads((self.store / "artifacts" / stage / key / "manifest.json").read_text())
        return self.store / "artifacts" / stage / key / str(manifest["attempt"])

    def command(self, name: str, *arguments: object) -> Ended:
        return weighin(name, *arguments, "--store", self.store)

    def verified(self, code: int = 1) -> Mapping[str, Any]:
        ended = self.command("verify", self.record.row, "--json")
        assert ended.code == code, ended
        (found,) = ended.data
        return dict(found)


@pytest.fixture(scope="module")
def first(plugin: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A run that nobody changes."""
    root = tmp_path_factory.mktemp("claimed")
    path = write(root / "micro.yaml", sweep(corpus, methods=["svd"]))
    ended = weighin("run", path, "--store", root / "store", "--on", "inline")
    assert ended.code == 0, ended
    return Ran(root / "store")


@pytest.fixture
def ran(first: Ran, tmp_path: Path) -> Ran:
    """A copy of it."""
    shutil.copytree(first.store, tmp_path / "store")
    return Ran(tmp_path / "store")


# Reproduce


def test_it_prints_a_sweep_that_asks_for_nothing_new(first: Ran, tmp_path: Path) -> None:
    ended = first.command("reproduce", first.record.row)
    assert ended.code == 0
    path = write(tmp_path / "again.yaml", ended.out)
    states = first.command("plan", path, "--json").data["stages"]
    assert {stage["state"] for stage in states} == {"cached"}
    for fact in (first.record.provenance["commit"], torch.__version__, "needs: corpus.directory: /"):
        assert fact in ended.out
    assert "code:" not in ended.out
    assert "keys:" not in ended.out


def test_a_run_of_it_elsewhere_gives_the_same_bits(first: Ran, tmp_path: Path) -> None:
    options = ("--run", "--into", tmp_path / "elsewhere", "--on", "inline", "--json")
    ended = first.command("reproduce", f"{first.record.row}#0", *options)
    assert ended.code == 0, ended
    assert ended.data["reproduced"]
    assert all(line["equal"] for line in ended.data["figures"])
    again = Ran(tmp_path / "elsewhere").record
    assert [m.value for m in again.measured] == [m.value for m in first.record.measured]
    assert again.size == first.record.size
    assert again.stages == first.record.stages


def test_what_is_otherwise_here_is_said(ran: Ran, tmp_path: Path) -> None:
    def older(data: dict[str, Any]) -> None:
        provenance = data["provenance"]
        provenance["versions"]["torch"] = "1.0"
        provenance["code"]["distill"] = "0" * 12
        provenance["hardware"] = "another\n# machine: {x"
        data["stages"]["distill"] = "f" * 24

    ran.edit(older)
    text = ran.command("reproduce", ran.record.row).out
    assert f"# WARNING: version: torch 1.0, here {torch.__version__}" in text
    assert "# WARNING: code: that of distill" in text
    assert "# hardware: another # machine: {x\n" in text
    load_sweep(write(tmp_path / "still.yaml", text))
    ran.edit(lambda data: data["provenance"]["sweep"]["corpus"].update(directory="no/such/place"))
    text = ran.command("reproduce", ran.record.row).out
    assert "missing here: corpus.directory no/such/place; --set corpus.directory=PATH" in text


def test_what_cannot_be_reproduced_is_refused_in_a_line(ran: Ran) -> None:
    def refused(*arguments: object) -> str:
        ended = ran.command("reproduce", *arguments)
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.count("\n") == 1
        return ended.err

    row = ran.record.row
    assert f"did you mean '{row}'?" in refused(row[:-1] + "z")
    assert "the row's own store" in refused(row, "--run", "--into", ran.store)
    ran.edit(lambda data: data["provenance"]["sweep"].update(teacher={"name": "x", "directory": 3}))
    assert "is not one" in refused(row)
    ran.edit(lambda data: data["provenance"].pop("sweep"))
    assert "older weighin" in refused(row)


# Model card


def front_matter(directory: Path) -> tuple[dict[str, Any], str]:
    _, matter, body = (directory / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(matter), body


def test_an_export_has_a_model_card(first: Ran, tmp_path: Path) -> None:
    record = first.record
    for form, options in (("transformers", ()), ("weighin", ("--factorised",))):
        directory = tmp_path / form
        assert first.command("export", record.row, directory, *options).code == 0
        matter, body = front_matter(directory)
        assert (matter["library_name"], matter["license"]) == (form, "unknown")
        (result,) = matter["model-index"][0]["results"]
        claimed = next(each for each in record.measured if each.when == "final")
        assert result["metrics"] == [{"type": "ppl", "name": "ppl", "value": claimed.value}]
        for fact in (f"{claimed.value:.6g}", "words-7", "licence of the text | unknown", f"reproduce '{record.id}'"):
            assert fact in body
        assert str(first.store.parent) not in body
    source = first.artifact("distill", record.stages["distill"]) / "model"
    for file in source.iterdir():
        assert (tmp_path / "weighin" / file.name).read_bytes() == file.read_bytes()
    assert "surgery" not in json.loads((tmp_path / "transformers" / "config.json").read_text())


def test_a_card_shows_what_a_record_says_as_text(ran: Ran, tmp_path: Path) -> None:
    nasty = "x\n---\nlicense: mit\n# big <script>alert(1)</script> | `a` \x1b[31m"

    def nastier(data: dict[str, Any]) -> None:
        data["cell"]["teacher"] = data["cell"]["method"] = nasty
        data["provenance"]["hardware"] = nasty
        data["provenance"]["sweep"]["recipes"][0]["deepspeed"] = {"```\n<script>": 1}

    ran.edit(nastier)
    assert ran.command("export", ran.record.row, tmp_path / "out").code == 0
    matter, body = front_matter(tmp_path / "out")
    assert matter["license"] == "unknown"
    assert "\x1b" not in body
    prose = "".join(body.split("```")[::2])
    assert "<script" not in prose
    assert "\n# big" not in prose
    assert body.count("```") == 6


# Verify


def test_a_checkpoint_that_holds_is_marked(ran: Ran) -> None:
    row = ran.record.row
    assert "claimed" in ran.command("show", row).out
    found = ran.verified(code=0)
    assert found["verdict"] == "holds"
    assert {metric["difference"] for metric in found["metrics"]} == {0.0}
    assert {(metric["how"], metric["when"]) for metric in found["metrics"]} == {
        ("re-evaluated", "final"),
        ("re-evaluated", "before_training"),
    }
    (file,) = (ran.store / "verifications").iterdir()
    assert file.name.startswith(f"{row}-0-")
    assert board_rows(ran.command("board", "--format", "json").data)[row]["verified"]["verdict"] == "holds"
    assert f"re-evaluated {found['created_at'][:10]}" in ran.command("show", row).out
    assert f"{row} ✓" in ran.command("board").out


def test_a_tampered_record_is_caught(ran: Ran) -> None:
    assert ran.verified(code=0)["verdict"] == "holds"

    def flattered(data: dict[str, Any]) -> None:
        data["measured"][0]["value"] *= 0.9
        data["size"]["params"] -= 100
        data["cell"]["budget"] = "params=0.5"
        data["cell"]["fields"] = {"matrices": "ffn"}
        data["sweep"] = "another"

    ran.edit(flattered)
    assert "✓" not in ran.command("board").out  # what was verified was another record
    found = ran.verified()
    assert found["verdict"] == "inconsistent"
    problems = {check["what"]: check["problem"] for check in found["checks"] if check["problem"]}
    assert set(problems) == {
        "the record's name fits its content",
        "its cell is what its stages were told",
        "its sizes are those that were counted",
        "its numbers are those that were measured",
        "its numbers follow from its items",
    }
    assert "budget" in problems["its cell is what its stages were told"]
    claimed = next(metric for metric in found["metrics"] if metric["when"] == "final")
    assert claimed["holds"] is False
    assert claimed["found"] == pytest.approx(claimed["claimed"] / 0.9, rel=1e-12)
    assert f"{ran.record.row} ✗" in ran.command("board").out


def swap(ran: Ran) -> Path:
    """Another model of the same shapes in place of the student."""
    path = ran.artifact("distill", ran.record.stages["distill"]) / "model" / "model.safetensors"
    weights = load_file(path)
    save_file({name: tensor * 1.01 for name, tensor in weights.items()}, path, metadata={"format": "pt"})
    return path


def test_a_swapped_checkpoint_is_caught(ran: Ran) -> None:
    path = swap(ran)
    found = ran.verified()
    assert found["verdict"] == "inconsistent"
    (problem,) = (check["problem"] for check in found["checks"] if check["problem"])
    assert "model/model.safetensors is not what was published" in problem
    # With its manifest forged too only the numbers can tell.
    manifest = path.parents[2] / "manifest.json"
    data = json.loads(manifest.read_text())
    data["files"]["model/model.safetensors"] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    manifest.write_text(json.dumps(data))
    found = ran.verified()
    assert found["verdict"] == "differs"
    assert not any(check["problem"] for check in found["checks"])
    assert {metric["when"]: metric["holds"] for metric in found["metrics"]} == {"final": False, "before_training": True}


@pytest.fixture
def another_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """The third party's distribution as it is after an edit."""

    def edited(old: str, new: str) -> None:
        directory = tmp_path / "edited" / str(len(list(tmp_path.glob("edited/*"))))
        directory.mkdir(parents=True)
        source = write_plugin(directory) / "third_party.py"
        assert old in source.read_text()
        source.write_text(source.read_text().replace(old, new))
        monkeypatch.syspath_prepend(directory)
        monkeypatch.delitem(__import__("sys").modules, "third_party", raising=False)
        digest._parts.cache_clear()

    yield edited
    digest._parts.cache_clear()


def test_a_changed_protocol_is_caught(ran: Ran, another_plugin: Callable[[str, str], None]) -> None:
    another_plugin("draw = Random(7)", "draw = Random(8)")
    found = ran.verified()
    assert found["verdict"] == "protocol_changed"
    assert found["changed"] == ["words.token_ppl.v1: code of third_party"]
    assert all(metric["holds"] is False for metric in found["metrics"])


def test_a_change_that_changes_no_number_is_a_note(ran: Ran, another_plugin: Callable[[str, str], None]) -> None:
    another_plugin("class Words:", "UNUSED = 1\n\n\nclass Words:")
    found = ran.verified(code=0)
    assert (found["verdict"], found["changed"]) == ("holds", ["words.token_ppl.v1: code of third_party"])


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [('return "words-7"', 'return "words-8"', "data words-7, here words-8"), (".v1", ".v2", "not in this checkout")],
)
def test_another_version_of_data_or_protocol_is_never_a_confirmation(
    ran: Ran,
    another_plugin: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
    old: str,
    new: str,
    named: str,
) -> None:
    monkeypatch.setattr("micro_sweep.ENTRY_POINTS", __import__("micro_sweep").ENTRY_POINTS.replace(old, new))
    another_plugin(old, new)
    found = ran.verified()
    assert found["verdict"] == "protocol_changed"
    assert named in " ".join(found["changed"])


def test_noise_is_told_from_a_difference(first: Ran) -> None:
    """The tolerance is above what another batch and other threads change, and far below what training does."""
    assert {each.when for each in first.record.measured} == {"final", "before_training"}
    by = {"final": 1e-9, "before_training": 1e-4}
    measured = [each.model_copy(update={"value": each.value * (1 + by[each.when])}) for each in first.record.measured]
    record = first.record.model_copy(update={"measured": measured})
    for metric in verify.verify(record, Store(str(first.store)), None).metrics:
        assert metric.difference == pytest.approx(-by[metric.when] * metric.claimed, rel=1e-3)
        assert metric.tolerance is not None
        assert 1e-6 <= metric.tolerance / metric.claimed < 5e-5
        assert "batch 3 and 2 threads" in metric.tolerance_from
        assert metric.holds is (metric.when == "final")


def test_nothing_to_verify_is_a_line(ran: Ran) -> None:
    ran.edit(lambda data: data.update(status="skipped", reason="nearest is 0.7", measured=[]))
    ended = ran.command("verify", ran.record.row)
    assert (ended.code, ended.err) == (2, f"error: {ran.record.row}: it is skipped: there is nothing to verify\n")


def test_a_store_without_its_artifacts_verifies_nothing(ran: Ran) -> None:
    shutil.rmtree(ran.store / "artifacts" / "distill")
    found = ran.verified()
    assert found["verdict"] == "partly"
    final = next(metric for metric in found["metrics"] if metric["when"] == "final")
    assert (final["how"], final["note"]) == ("not checked", "its checkpoint is not in this store")
