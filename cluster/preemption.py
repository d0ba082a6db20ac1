"""SIGTERM in a gang: its training runs in a thread, and signals reach the main thread alone."""

from __future__ import annotations

from typing import Any

from harness.engine.preemption import listen


def set_up() -> dict[str, str]:
    """Environment of a worker process that begins with `listen_in_worker`.

    Ray's own key for this holds for all workers of a driver.
    """
    from ray._private.ray_constants import WORKER_PROCESS_SETUP_HOOK_ENV_VAR

    return {WORKER_PROCESS_SETUP_HOOK_ENV_VAR: f"{__name__}.{listen_in_worker.__name__}"}


def listen_in_worker() -> None:
    """Set up a gang's worker process so that a training there hears of SIGTERM; outside of one Ray handles it.

    Ray sets its handler after everything that a process can be set up with; ours is put before it at that moment.
    """
    from ray._private import utils

    set_ray_handler = utils.set_sigterm_handler

    def set_both(handler: Any) -> None:
        set_ray_handler(handler)
        listen()

    utils.set_sigterm_handler = set_both
