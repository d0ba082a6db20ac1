"""How much memory running a model takes, weights included."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path

import torch

PROCESS = Path("/proc/self")


class Peak:
    """The most memory in use since `restart`, over what was in use when this was made; None where nothing tells.

    On a GPU it is what torch allocated. On a CPU it is the process's resident set, which only Linux can count anew;
    what was freed is given back to the system first.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        gc.collect()
        release()
        self._before = self._now()

    def restart(self) -> None:
        """Forget what was in use until now, such as the copy from which weights were loaded."""
        release()
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        elif self._before is not None:
            (PROCESS / "clear_refs").write_text("5")

    def bytes(self) -> int | None:
        """Bytes."""
        if self._before is None:
            return None
        most = torch.cuda.max_memory_allocated() if self.device == "cuda" else resident_bytes("VmHWM")
        return max(0, most - self._before)

    def _now(self) -> int | None:
        if self.device == "cuda":
            return torch.cuda.memory_allocated()
        return resident_bytes("VmRSS") if (PROCESS / "clear_refs").exists() else None


def resident_bytes(which: str) -> int:
    """Bytes of this process in memory: now (`VmRSS`), or the most since the peak was cleared (`VmHWM`)."""
    lines = (PROCESS / "status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{which}:"))) * 1024


def release() -> None:
    """Give freed memory back to the system, where the C library can (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
