"""SIGTERM while training: remembered, so that the loop can write a checkpoint and leave."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_asked = threading.Event()
_watchers = 0
_before: Any = signal.SIG_DFL


def listen() -> None:
    """Handle SIGTERM from now on; in the main thread, for a process whose training runs in another one."""
    global _before
    if signal.getsignal(signal.SIGTERM) is not _remember:
        _before = signal.signal(signal.SIGTERM, _remember)


@contextmanager
def watching() -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether the process was asked to end; afterwards SIGTERM does what it did before.

    In a thread that may not handle signals it says what the main thread's `listen` heard.
    """
    global _watchers
    main = threading.current_thread() is threading.main_thread()
    if main:
        listen()
    _watchers += 1
    try:
        yield _asked.is_set
    finally:
        _watchers -= 1
        _asked.clear()
        if main:
            signal.signal(signal.SIGTERM, _before)


def _remember(number: int, frame: FrameType | None) -> None:
    if _watchers:
        _asked.set()
    elif callable(_before):
        _before(number, frame)
    else:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)
