"""Energy from the hardware's own counters: RAPL for processors, NVML for NVIDIA GPUs; nothing where they say nothing.

A counter is of the whole package or device, idle power and other processes included.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

POWERCAP = Path("/sys/class/powercap")
"""Linux's power capping interface (kernel documentation, `power/powercap`); reading a counter may need root."""


class Meter(Protocol):
    """A counter of energy that never falls."""

    source: str

    def joules(self) -> float:
        """Joules since some fixed moment."""


class Rapl:
    """Sum over the processor packages (`intel-rapl:N` named `package-M`, AMD's too): cores, caches, without memory.

    A counter of microjoules starts again at zero after `max_energy_range_uj`; it must be read once in that range,
    which is minutes at full power.
    """

    source = "RAPL packages"

    def __init__(self, zones: list[Path]) -> None:
        self._zones = zones
        self._range_uj = [int((zone / "max_energy_range_uj").read_text()) for zone in zones]
        self._last_uj = [_counter_uj(zone) for zone in zones]
        self._total_uj = 0

    @classmethod
    def find(cls, root: Path = POWERCAP) -> Rapl | None:
        """The machine's packages; None when there are none, or their counters may not be read."""
        try:
            zones = [zone for zone in sorted(root.glob("intel-rapl:*")) if _name(zone).startswith("package")]
            return cls(zones) if zones else None
        except (OSError, ValueError):
            return None

    def joules(self) -> float:
        now = [_counter_uj(zone) for zone in self._zones]
        self._total_uj += sum((n - b) % (r + 1) for n, b, r in zip(now, self._last_uj, self._range_uj, strict=True))
        self._last_uj = now
        return self._total_uj / 1e6


def _name(zone: Path) -> str:
    return (zone / "name").read_text().strip()


def _counter_uj(zone: Path) -> int:
    return int((zone / "energy_uj").read_text())


class Nvml:
    """torch's current CUDA device, through the package `pynvml` (`nvidia-ml-py`): millijoules since the driver came."""

    source = "NVML"

    def __init__(self, library: Any, device: Any) -> None:
        self._library, self._device = library, device

    @classmethod
    def find(cls) -> Nvml | None:
        """None without `pynvml`, or on a GPU that does not count (before Volta)."""
        import torch

        try:
            import pynvml
        except ImportError:
            return None
        try:
            pynvml.nvmlInit()
            uuid = torch.cuda.get_device_properties(torch.cuda.current_device()).uuid
            found = cls(pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}"))
            found.joules()
        except pynvml.NVMLError:
            return None
        return found

    def joules(self) -> float:
        return float(self._library.nvmlDeviceGetTotalEnergyConsumption(self._device)) / 1e3


def meter(device: str) -> Meter | None:
    """What counts the energy of `cpu` or `cuda` here; None when nothing does."""
    return Nvml.find() if device == "cuda" else Rapl.find()
