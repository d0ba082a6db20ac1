"""Fixtures for every test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

collect_ignore = ["example_wheel"]  # another distribution's, with a suite of its own that is run once it is installed


@pytest.fixture(scope="session")
def mirror() -> Path:
    """The local mirror of hub repositories; skips without it, or fails where WEIGHIN_REQUIRE asks for it."""
    default = Path(__file__).parents[2] / "shared" / "mirror"
    path = Path(os.environ.get("WEIGHIN_MIRROR") or default)
    if not (path / "datasets").is_dir():
        reason = f"no data mirror at {path} (set WEIGHIN_MIRROR)"
        if "mirror" in os.environ.get("WEIGHIN_REQUIRE", "").split(","):
            pytest.fail(reason)
        pytest.skip(reason)
    return path
