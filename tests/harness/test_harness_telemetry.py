"""Telemetry of training: what a line says, where lines go, and that no sink can harm a run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from micro_sweep import Ended, board_rows, sweep, weighin, write
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from harness import recorder, sinks
from harness.driver import Progress, State
from harness.engine.telemetry import cpu_peak_flops, peak_flops
from harness.executor import Job
from harness.live import LiveProgress
from results.artifacts import Artifacts, Attempt
from results.events import read_events, write_batch
from results.store import Store

pytestmark = pytest.mark.sweep

FAKE_MLFLOW = '''
"""The part of MLflow's client that is used, with its signatures."""

from types import SimpleNamespace

calls = []
fails = False


class MlflowClient:
    def __init__(self, tracking_uri=None, registry_uri=None):
        if fails:
            raise ConnectionError("no server at " + tracking_uri + chr(10) + "a second line")
        calls.append(("client", tracking_uri))

    def get_experiment_by_name(self, name):
        made = any(call[0] == "create_experiment" for call in calls)
        return SimpleNamespace(experiment_id="7") if made else None

    def create_experiment(self, name, artifact_location=None, tags=None):
        calls.append(("create_experiment", name))
        return "7"

    def create_run(self, experiment_id, start_time=None, tags=None, run_name=None):
        calls.append(("create_run", experiment_id, run_name, tags))
        return SimpleNamespace(info=SimpleNamespace(run_id=f"run of {run_name}"))

    def log_batch(self, run_id, metrics=(), params=(), tags=(), synchronous=None):
        assert len(metrics) <= 1000
        calls.append(("log_batch", run_id, metrics))

    def set_terminated(self, run_id, status=None, end_time=None):
        calls.append(("set_terminated", run_id, status))
'''
FAKE_ENTITIES = """
class Metric:
    def __init__(self, key, value, timestamp, step):
        self.line = (key, value, timestamp, step)
"""
FAKE_WANDB = '''
"""The part of W&B's interface that is used, with its signatures."""

calls = []


class Settings:
    def __init__(self, *, console, silent):
        assert (console, silent) == ("off", True)


class Run:
    def log(self, data, step=None, commit=None):
        calls.append(("log", step, data))

    def finish(self, exit_code=None, quiet=None):
        calls.append(("finish", exit_code))


def init(entity=None, project=None, dir=None, id=None, name=None, config=None, group=None, job_type=None, reinit=None,
         settings=None):
    assert reinit == "create_new"
    assert isinstance(settings, Settings)
    calls.append(("init", entity, project, group, job_type, name, config))
    return Run()
'''


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fakes of MLflow and W&B, installed."""
    root = tmp_path / "services"
    (root / "mlflow").mkdir(parents=True)
    (root / "mlflow" / "__init__.py").write_text(FAKE_MLFLOW)
    (root / "mlflow" / "entities.py").write_text(FAKE_ENTITIES)
    (root / "wandb.py").write_text(FAKE_WANDB)
    names = ("mlflow", "mlflow.entities", "wandb")
    monkeypatch.syspath_prepend(root)
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield
    for name in names:
        sys.modules.pop(name, None)


def run(corpus: Path, root: Path, **changes: Any) -> Ended:
    path = write(root / "micro.yaml", sweep(corpus, methods=["svd"], **changes))
    return weighin("run", path, "--store", root / "store", "--on", "inline")


def stages(store: Store, *names: str) -> list[tuple[str, str, str]]:
    """Stage, key and attempt of the artifacts of stages that train."""
    found = Artifacts(store)
    return [(m.stage, m.key, m.attempt) for name in names for m in found.manifests(name)]


def quality(root: Path) -> list[Any]:
    rows = board_rows(weighin("board", "--store", root / "store", "--format", "json").data)
    return [row["quality"] for row in rows.values()]


@pytest.fixture(scope="module")
def watched(plugin: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with TensorBoard, and a batch for every step."""
    root = tmp_path_factory.mktemp("watched")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorder, "BATCH_S", 0.0)
        patch.setattr(recorder, "BATCH_FRACTION", 0.0)
        assert run(corpus, root, telemetry={"tensorboard": True}).code == 0
    return root


def test_every_step_has_a_line_whose_numbers_are_those_of_the_formulas(watched: Path) -> None:
    store = Store(str(watched / "store"))
    width, layers, vocabulary, length = 16, 2, 300, 32
    forward = 2 * (layers * 12 * width**2 + vocabulary * width + layers * 2 * length * width)
    (teacher,), (distill,) = stages(store, "teacher"), stages(store, "distill")
    for stage, parts in ((teacher, {"ce"}), (distill, {"ce", "kd"})):
        lines = read_events(store, *stage[:2])
        home = Artifacts(store).home(*stage[:2])
        curve = json.loads(store.read_bytes(f"{home}/{stage[2]}/curve.json"))
        measured = {"unix_time_s", "step_s", "tokens_per_s", "model_flops_per_s", "mfu", "memory_bytes"}
        assert [{k: v for k, v in line.items() if k not in measured} for line in lines] == curve
        assert set(lines[0]) - measured == {"step", "tokens", "loss", "gradient_norm", "learning_rate"} | parts
        assert [line["step"] for line in lines] == [1, 2, 3, 4]
        assert all(line["gradient_norm"] > 0 for line in lines)
        for line in lines:
            flops = line["model_flops_per_s"] / line["tokens_per_s"]
            assert line["tokens_per_s"] * line["step_s"] == pytest.approx(128)
            assert flops == pytest.approx(3 * forward) if stage is teacher else forward < flops < 4 * forward
            assert line["mfu"] == pytest.approx(line["model_flops_per_s"] / cpu_peak_flops(1))
            assert 2**20 < line["memory_bytes"] < 2**40
        times = [line["unix_time_s"] for line in lines]
        assert times == sorted(times)


def test_events_come_in_batches_of_an_object_each(watched: Path, plugin: Path, corpus: Path, tmp_path: Path) -> None:
    assert run(corpus, tmp_path).code == 0
    for root, count in ((watched, 4), (tmp_path, 1)):
        store = Store(str(root / "store"))
        for stage, key, attempt in stages(store, "teacher", "distill"):
            assert len(store.names(f"events/{stage}/{key}/{attempt}")) == count
    assert not (tmp_path / "store" / "tensorboard").exists()
    assert quality(tmp_path) == quality(watched)


def test_tensorboard_reads_what_the_events_say(watched: Path) -> None:
    store = Store(str(watched / "store"))
    for stage, key, _ in stages(store, "teacher", "distill"):
        (directory,) = (watched / "store" / "tensorboard" / "micro").glob(f"{stage}_*-{key[:8]}")
        read = EventAccumulator(str(directory))
        read.Reload()
        lines = read_events(store, stage, key)
        assert set(read.Tags()["scalars"]) == set(lines[0]) - {"step", "unix_time_s"}
        for name in read.Tags()["scalars"]:
            points = read.Scalars(name)
            assert [(p.step, p.wall_time) for p in points] == [(line["step"], line["unix_time_s"]) for line in lines]
            np.testing.assert_allclose([p.value for p in points], [line[name] for line in lines], rtol=1e-6)


def test_telemetry_is_in_no_key(watched: Path, plugin: Path, corpus: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "micro.yaml", sweep(corpus, methods=["svd"]))
    planned = weighin("plan", path, "--store", watched / "store", "--json").data
    assert {stage["state"] for stage in planned["stages"]} == {"cached"}


def test_mlflow_gets_a_run_per_stage(services: None, plugin: Path, corpus: Path, tmp_path: Path) -> None:
    assert run(corpus, tmp_path, telemetry={"mlflow": "http://mlflow.test:5000"}).code == 0
    import mlflow

    store = Store(str(tmp_path / "store"))
    expected: list[tuple[Any, ...]] = []
    for label, (stage, key, attempt) in zip(LABELS, stages(store, "teacher", "distill"), strict=True):
        lines = read_events(store, stage, key)
        facts = {"stage": stage, "key": key, "attempt": attempt, "sweep": "micro"}
        expected += [("client", "http://mlflow.test:5000")]
        expected += [("create_experiment", "micro")] if stage == "teacher" else []
        metrics = [
            (name, value, int(1000 * line["unix_time_s"]), line["step"])
            for line in lines
            for name, value in line.items()
            if name not in ("step", "unix_time_s")
        ]
        expected += [("create_run", "7", label, facts), ("log_batch", f"run of {label}", metrics)]
        expected += [("set_terminated", f"run of {label}", "FINISHED")]
    calls = [
        (*call[:2], [metric.line for metric in call[2]]) if call[0] == "log_batch" else call for call in mlflow.calls
    ]
    assert calls == expected


LABELS = ("teacher micro-gpt2", "distill svd params=0.8 #0")


@pytest.mark.parametrize(("project", "entity"), [("compression", None), ("lab/compression", "lab")])
def test_wandb_gets_a_run_per_stage(
    services: None, plugin: Path, corpus: Path, tmp_path: Path, project: str, entity: str | None
) -> None:
    changes = {} if entity else {"recipes": ["none"]}
    assert run(corpus, tmp_path, telemetry={"wandb": project}, **changes).code == 0
    import wandb

    store = Store(str(tmp_path / "store"))
    expected: list[tuple[Any, ...]] = []
    for label, (stage, key, attempt) in zip(LABELS, stages(store, "teacher", "distill"), strict=bool(entity)):
        facts = {"stage": stage, "key": key, "attempt": attempt, "sweep": "micro"}
        expected += [("init", entity, "compression", "micro", stage, label, facts)]
        for line in read_events(store, stage, key):
            expected += [("log", line["step"], {k: v for k, v in line.items() if k not in ("step", "unix_time_s")})]
        expected += [("finish", 0)]
    assert wandb.calls == expected


def test_a_failing_sink_warns_once_and_changes_nothing(
    services: None, watched: Path, plugin: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setattr(mlflow, "fails", True)
    monkeypatch.setattr(recorder, "BATCH_S", 0.0)
    monkeypatch.setattr(recorder, "BATCH_FRACTION", 0.0)
    ended = run(corpus, tmp_path, telemetry={"mlflow": "http://mlflow.test"})
    assert ended.code == 0
    store = Store(str(tmp_path / "store"))
    warning = "telemetry.mlflow failed: ConnectionError: no server at http://mlflow.test; dropped"
    for label, (stage, key, attempt) in zip(LABELS, stages(store, "teacher", "distill"), strict=True):
        line = Artifacts(store).attempt(stage, key, attempt)
        assert line is not None
        assert line.warnings == [warning]
        assert ended.out.count(f"warning {label}: {warning}") == 1
        assert len(read_events(store, stage, key)) == 4
    assert quality(tmp_path) == quality(watched)


@pytest.mark.parametrize(
    ("telemetry", "message"),
    [
        ({"wandb": "p"}, "telemetry.wandb: the package wandb is not installed; run: pip install wandb"),
        ({"tensorbord": True}, "telemetry.tensorbord: unknown key; did you mean 'tensorboard'?"),
        ({"mlflow": "https://me:secret@host"}, "telemetry.mlflow: credentials do not belong in a sweep; MLflow reads"),
        ({"wandb": "a/b/c"}, "telemetry.wandb: String should match pattern"),
    ],
)
def test_what_cannot_be_had_is_said_at_plan_time(
    plugin: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, telemetry: Any, message: str
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    path = write(tmp_path / "micro.yaml", sweep(corpus, telemetry=telemetry))
    for command in ("plan", "run"):
        ended = weighin(command, path, "--store", tmp_path / "store")
        assert ended.code == 2
        assert message in ended.err
        assert "secret" not in ended.err
        assert not (tmp_path / "store").exists()


def test_a_row_s_loss_curve_is_drawn(watched: Path, tmp_path: Path) -> None:
    store = watched / "store"
    (record,) = Store(str(store)).records()
    drawing = tmp_path / "curve.svg"
    ended = weighin("show", record.row, "--store", store, "--curve", drawing)
    assert (ended.code, ended.out) == (0, f"wrote {drawing}\n")
    assert f"row {record.row} #0" in drawing.read_text()
    for path, message in (
        (tmp_path / "curve.gif", "plots are drawn as .svg, .png, .pdf"),
        (tmp_path / "no" / "curve.svg", "cannot be written: No such file or directory"),
    ):
        ended = weighin("show", record.row, "--store", store, "--curve", path)
        assert ended.code == 2
        assert ended.err == f"error: --curve {path}: {message}\n"


def job(**changes: Any) -> Job:
    fields: dict[str, Any] = {"stage": "distill", "key": "k" * 24, "attempt": "1-a", "target": "", "params": {}}
    return Job(**fields | {"parents": {}, "store": "", "label": "a b/c", "sweep": "s"} | changes)


def lines(steps: Sequence[int], loss: float) -> list[Mapping[str, float]]:
    return [{"unix_time_s": 100.0 + step, "step": step, "loss": loss} for step in steps]


@pytest.mark.parametrize("where", ["local", "memory"])
def test_a_later_attempt_replaces_the_steps_that_it_repeats(tmp_path: Path, where: str) -> None:
    store = Store(str(tmp_path / "store") if where == "local" else f"memory://{tmp_path.name}")
    for attempt, steps, loss in (("1-a", (1, 2, 3), 9.0), ("2-b", (3, 4), 5.0)):
        write_batch(store, "distill", "k" * 24, attempt, 0, lines(steps, loss))
        board = sinks.TensorBoard(job(attempt=attempt), store)
        board.write(lines(steps, loss))
        board.close(failed=False)
    expected = [(1, 9.0), (2, 9.0), (3, 5.0), (4, 5.0)]
    assert [(line["step"], line["loss"]) for line in read_events(store, "distill", "k" * 24)] == expected
    directory = tmp_path / "read"
    directory.mkdir()
    for name in store.names("tensorboard/s/a_b_c-kkkkkkkk"):
        (directory / name).write_bytes(store.read_bytes(f"tensorboard/s/a_b_c-kkkkkkkk/{name}"))
    read = EventAccumulator(str(directory))
    read.Reload()
    assert [(point.step, point.value) for point in read.Scalars("loss")] == expected


def test_training_waits_for_no_sink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = Event()

    class Stuck:
        def write(self, lines: Any) -> None:
            stuck.wait(30)

    opened: dict[str, Callable[[], Any]] = {"stuck": Stuck}
    monkeypatch.setattr(recorder, "sinks_of", lambda job, store: opened)
    monkeypatch.setattr(recorder, "PATIENCE_S", 0.05)
    monkeypatch.setattr(recorder, "BATCH_S", 0.0)
    monkeypatch.setattr(recorder, "BATCH_FRACTION", 0.0)
    found = recorder.Recorder(job(), Store(str(tmp_path)))
    for step in range(3):
        found({"step": step, "loss": 1.0}, tokens=10, seconds=0.5, flops_per_token=1e6)
    assert found.numbers["mfu"] == pytest.approx(2e7 / cpu_peak_flops(1), rel=1e-6)
    found.close(failed=False)
    stuck.set()
    assert found.warnings == ["telemetry.stuck has not taken everything 0 s after the end; dropped"]


def test_peaks_are_found_by_name() -> None:
    assert peak_flops("NVIDIA H100 80GB HBM3", "bf16") == 989e12
    assert peak_flops("NVIDIA H100 PCIe", "bf16") == 756e12
    assert peak_flops("NVIDIA A100-SXM4-40GB", "fp32") == 19.5e12
    assert peak_flops("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bf16") is None
    assert peak_flops("Some GPU", "bf16") is None
    assert 1e8 < cpu_peak_flops(1) < 1e13


def test_the_live_view_shows_speed_loss_and_utilisation() -> None:
    out = StringIO()
    line = Attempt(
        id="1", stage="distill", key="k", progress={"done": 1, "total": 4, "loss": 2.5, "tokens_per_s": 1234.5}
    )
    line.progress["mfu"] = 0.342
    progress = Progress(states={"k": State.RUNNING}, labels={"k": "distill"}, running=[("distill", line)])
    with LiveProgress(Console(file=out)) as watch:
        watch(progress)
    assert "distill  25%  1,234 tokens/s  loss 2.500  mfu 34%" in out.getvalue()
