"""Joining a cluster that is not there."""

import pytest

from cluster.ray_executor import RayExecutor
from harness.errors import SpecError


@pytest.mark.ray
def test_an_address_where_nothing_listens_is_the_users_error(monkeypatch):
    with pytest.raises(SpecError, match=r"--address nowhere\.invalid:1: cannot join"):
        RayExecutor(address="nowhere.invalid:1").finished(0)
