"""A lease on a key keeps two workers from doing one stage at once. It only saves work: publishing is the fence."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from results.store import Store

RENEW_S = 10.0
EXPIRE_S = 60.0


def _process_start(pid: int) -> str | None:
    """When a process of this host started, in clock ticks since boot; None when it is gone or this is not Linux."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return None


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


class Lease:
    """`with Lease(...)` holds a key while the block runs, renewed in the background.

    Staleness is judged by watching: a lease whose text has not changed for `EXPIRE_S` seconds of the watcher's own
    clock is dead, whatever times are written in it; one held by a process of this host that is gone is dead at once.
    """

    def __init__(self, store: Store, home: str, attempt: str) -> None:
        self.store, self.name, self.attempt = store, f"{home}/lease.json", attempt
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._seen: tuple[bytes, float] | None = None

    def _text(self) -> bytes:
        pid = os.getpid()
        owner = {"attempt": self.attempt, "host": socket.gethostname(), "boot": _boot(), "pid": pid}
        return json.dumps(owner | {"started": _process_start(pid), "renewed_at": time.time()}).encode()

    def try_acquire(self) -> bool:
        """Take the lease when it is free or dead; False while somebody else holds it."""
        if self.store.put_if_absent(self.name, self._text()):
            return True
        try:
            text = self.store.read_bytes(self.name)
        except FileNotFoundError:
            return False
        if not self._dead(text):
            return False
        self.store.write(self.name, self._text())
        return True

    def held_by(self, attempt: str) -> bool:
        """True when that attempt holds the lease."""
        owner = self.store.read_json(self.name)
        return owner is not None and owner["attempt"] == attempt

    def _dead(self, text: bytes) -> bool:
        now = time.monotonic()
        if self._seen is None or self._seen[0] != text:
            self._seen = (text, now)
        try:
            owner: dict[str, Any] = json.loads(text)
        except ValueError:
            return True
        here = owner["host"] == socket.gethostname() and owner["boot"] == _boot() and owner["started"] is not None
        gone = here and _process_start(owner["pid"]) != owner["started"]
        return gone or now - self._seen[1] > EXPIRE_S

    def __enter__(self) -> Lease:
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._thread.start()
        return self

    def _renew(self) -> None:
        while not self._stop.wait(RENEW_S):
            with suppress(OSError):  # the next try may reach the store; until then the lease only ages
                self.store.write(self.name, self._text())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        assert self._thread is not None
        self._thread.join()
        self.store.remove(self.name)
