"""A corpus, a plug-in and finished runs that tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from micro_sweep import write_corpus, write_plugin


@pytest.fixture(scope="session")
def plugin_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A third party's distribution, not on the path."""
    return write_plugin(tmp_path_factory.mktemp("plugin"))


@pytest.fixture(scope="module")
def plugin(plugin_directory: Path) -> Iterator[Path]:
    """The third party's distribution, installed while a module's tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(plugin_directory)
        yield plugin_directory


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of short texts."""
    return write_corpus(tmp_path_factory.mktemp("corpus") / "texts")


@pytest.fixture(scope="session", autouse=True)
def _short_profiles() -> Iterator[None]:
    """Speed is measured by the fewest rounds: sweeps of tests are not about it."""
    from harness.speed import generation
    from harness.stages import profile

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profile, "LATENCY", profile.Box(seconds=0, fewest=2, most=2))
        patch.setattr(profile, "THROUGHPUT", profile.Box(seconds=0, fewest=2, most=2))
        patch.setattr(profile, "LOADS", profile.Box(seconds=0, fewest=1, most=1))
        patch.setattr(profile, "PREFILLS", 1)
        patch.setattr(generation, "GENERATED_TOKENS", 2)
        yield
