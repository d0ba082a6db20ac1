"""Where and by what code something was computed: recorded with every artifact and record, never hashed."""

from __future__ import annotations

import platform
import socket
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_RECORDED = ("torch", "transformers", "deepspeed", "ray", "lm_eval", "tensorly", "numpy", "scipy", "tokenizers")


@cache
def environment() -> dict[str, Any]:
    """Host, hardware, interpreter, library versions and the commit of this checkout."""
    return {
        "host": socket.gethostname(),
        "hardware": hardware(),
        "python": platform.python_version(),
        "versions": {name: found for name in _RECORDED if (found := _version(name))},
        **commit(),
    }


@cache
def hardware() -> str:
    """The machine's class: processor and core count, and the GPU where torch sees one."""
    import os
    import sys

    model = platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    cpu = f"{os.cpu_count()} x {model}"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, {cpu}"
    return cpu


@cache
def commit() -> dict[str, Any]:
    """`commit` and whether the checkout is `dirty`; both None outside a git checkout."""
    root = Path(__file__).resolve().parent.parent
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
        state = subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
    return {"commit": head.stdout.strip(), "dirty": bool(state.stdout.strip())}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
