"""Gangs that lose a worker at a random step: nobody hangs, and what is resumed ends with the same weights.

Twenty kills, each from a seed: of rank 0, of rank 1, of all, and by SIGTERM; resumed on the same layout, or on another
number of workers and another ZeRO stage. The first four are of the tier `distributed`, the others `slow`.
"""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from layout_worker import complete, finish, gang
from safetensors.torch import load_file

pytestmark = pytest.mark.timeout(240)

STEPS = 30
GRACE_S = 60
"""More than the workers' patience with each other, less than any default's."""
MODES = ("rank 0", "rank 1", "all", "sigterm")


def trial(seed: int) -> dict[str, Any]:
    draw = random.Random(seed)
    mode = MODES[seed % 4]
    layout = (2, draw.randrange(4))
    after = layout if draw.random() < 0.5 else (draw.choice([1, 2]), draw.randrange(4))
    return {"mode": mode, "before": layout, "after": after, "step": draw.randrange(1, STEPS - 3)}


def numbered(seed: int) -> object:
    return pytest.param(seed, marks=pytest.mark.distributed if seed < 4 else pytest.mark.slow)


def options(layout: tuple[int, int], **more: object) -> list[dict[str, object]]:
    return [{"name": "run", "steps": STEPS, "zero_stage": layout[1], "micro_batch": 2, "dropout": 0.1} | more]


def step_of(out: Path, rank: int) -> int:
    path = out / f"step-{rank}"
    text = path.read_text() if path.exists() else ""
    return int(text or 0)


def whole(layout: tuple[int, int], root: Path) -> dict[str, torch.Tensor]:
    """The weights of a run that nothing happens to."""
    out = root / f"whole-{layout[0]}-{layout[1]}"
    if not (out / "run.safetensors").exists():
        complete(layout[0], out, options(layout))
    return load_file(out / "run.safetensors")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kills")


@pytest.mark.parametrize("seed", [numbered(seed) for seed in range(20)])
def test_a_killed_gang_resumes_to_the_same_weights(seed: int, root: Path, tmp_path: Path) -> None:
    plan = trial(seed)
    before, after = plan["before"], plan["after"]
    store = str(tmp_path / "store")
    with gang(before[0], tmp_path / "killed", options(before, store=store, attempt="a")) as workers:
        ended, took_s = disturb(workers, plan, tmp_path / "killed", seed)
    assert took_s < (30 if plan["mode"] == "sigterm" else GRACE_S)
    assert all(status != 0 for status, _ in ended), plan
    if plan["mode"] == "sigterm":
        assert all("SIGTERM) after step" in said for _, said in ended), ended
    complete(after[0], tmp_path / "resumed", options(after, store=store, attempt="b"))
    ours, expected = load_file(tmp_path / "resumed" / "run.safetensors"), whole(before, root)
    distance = apart(ours, expected)
    print(f"\n{seed:2} {plan['mode']:8} at step {plan['step']:2}, {before} -> {after}: {distance:.1e}", end="")
    if before == after:
        assert all(torch.equal(ours[name], expected[name]) for name in expected), plan
    assert distance <= 1e-5, plan


def disturb(
    workers: list[subprocess.Popen[str]], plan: dict[str, Any], out: Path, seed: int
) -> tuple[list[tuple[int, str]], float]:
    """Kill at the step that the plan says; how all workers ended, and seconds until the last one had."""
    until = time.monotonic() + 120
    while min(step_of(out, rank) for rank in (0, 1)) < plan["step"]:
        assert all(worker.poll() is None for worker in workers), [w.communicate()[0][-3000:] for w in workers]
        assert time.monotonic() < until, "the gang did not get to the step in time"
        time.sleep(0.002)
    victims = {"rank 0": workers[:1], "rank 1": workers[1:], "all": workers, "sigterm": workers[seed % 8 // 4 :][:1]}
    for victim in victims[plan["mode"]]:
        victim.send_signal(signal.SIGTERM if plan["mode"] == "sigterm" else signal.SIGKILL)
    started = time.monotonic()
    return finish(workers, timeout_s=GRACE_S), time.monotonic() - started


def apart(ours: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Largest relative distance of a parameter. Of keys' biases nothing counts: they change no attention map, their
    gradient is rounding alone, and Adam brings that to the size of any other."""
    found = []
    for name, theirs in expected.items():
        width = len(theirs) // 3
        kept = [slice(0, width), slice(2 * width, None)] if name.endswith("c_attn.bias") else [slice(None)]
        for part in kept:
            a, b = ours[name][part].double(), theirs[part].double()
            found.append(float((a - b).norm() / b.norm()))
    return max(found)
