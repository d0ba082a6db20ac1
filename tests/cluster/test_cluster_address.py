"""Joining a cluster that is not there."""

import pytest

from cluster.ray_executor import RayExecutor
from harness.errors import SpecError


def test_an_address_where_nothing_listens_is_the_users_error():
    with pytest.raises(SpecError, match=r"--address 127\.0\.0\.1:1: cannot join a Ray cluster there: .*refused"):
        RayExecutor(address="127.0.0.1:1").finished(0)
