"""What `run` and `plan` do: check everything first, then run or show."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from harness.errors import SpecError
from methods.interface import MethodError
from results.artifacts import Artifacts
from results.store import Store
from tasks.interface import DataError


def run_sweep(
    path: Path,
    store_url: str,
    mirror: Path | None,
    overrides: Sequence[str],
    *,
    on: str,
    address: str | None,
    retry_failed: bool = False,
) -> int:
    """Run a sweep to its end, print its board; 0 when every cell is complete or skipped, else 1."""
    from harness.driver import Driver
    from harness.executor import check_executor, executor
    from harness.live import LiveProgress
    from harness.planner import check_sources

    check_executor(on)
    if address and on != "ray":
        raise SpecError(f"--address goes with --on ray, not {on}")
    plan = _planned(path, mirror, overrides)
    with _naming(path):
        check_sources(plan)
    store = Store(_absolute(store_url))
    store.create()
    console = Console(soft_wrap=True)
    with LiveProgress(console) as watch:
        options = {"address": address} if address else {}
        driver = Driver(plan, Artifacts(store), lambda: executor(on, **options), watch=watch, retry_failed=retry_failed)
        records = driver.run()
    _print_board(store, plan.sweep.name, console)
    return 1 if any(record.status == "failed" for record in records) else 0


def show_plan(path: Path, store_url: str, mirror: Path | None, overrides: Sequence[str], *, as_json: bool) -> None:
    """Print the plan; nothing is run or written."""
    from harness.driver import initial_states
    from harness.plan_view import plan_json, reasons, render_plan
    from harness.pricing import prices
    from harness.stage_memory import forecasts

    plan = _planned(path, mirror, overrides)
    artifacts = Artifacts(Store(_absolute(store_url)))
    states = initial_states(plan, artifacts)
    why = reasons(plan, states, artifacts)
    priced, memory = prices(plan, states, artifacts), forecasts(plan, states)
    if as_json:
        print(json.dumps(plan_json(plan, states, why, priced, memory), indent=1))
        return
    console = Console()
    console.width = max(console.width, 140) if not console.is_terminal else console.width
    console.print(render_plan(plan, states, why, priced, memory, artifacts))


def _planned(path: Path, mirror: Path | None, overrides: Sequence[str]):  # type: ignore[no-untyped-def]
    from harness.spec import load_sweep

    sweep = load_sweep(path, overrides)
    if mirror is not None and not mirror.is_dir():
        raise SpecError(f"--mirror {mirror}: no such directory")
    warnings.filterwarnings("ignore")
    from harness.planner import plan_sweep
    from harness.sinks import check_packages

    with _naming(path):
        check_packages(sweep.telemetry.model_dump())
        return plan_sweep(sweep, mirror.resolve() if mirror else None)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Say in which file it stands, when what a sweep asks for cannot be had."""
    try:
        yield
    except (SpecError, MethodError, DataError) as error:
        raise SpecError(f"{path}: {error}") from error


def _absolute(url: str) -> str:
    """A plain path is made absolute, so that workers find it wherever they run; a URL stays."""
    return url if "://" in url else str(Path(url).absolute())


def _print_board(store: Store, sweep: str, console: Console) -> None:
    from harness.boards import render

    console.file.write(render(store.url, sweep, "table"))
    page = (store.local or Path(".")) / "board.html"
    page.write_text(render(store.url, None, "html", warn=False), encoding="utf-8")
    console.print(f"page: {page}", highlight=False)
