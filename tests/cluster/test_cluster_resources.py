"""Which jobs can never run on which nodes."""

import pytest

from cluster.resources import GIB, shortfall
from harness.stage import Execution

SMALL = {"CPU": 4.0, "memory": 16.0 * GIB}
LARGE = {"CPU": 32.0, "GPU": 4.0, "memory": 128.0 * GIB}


@pytest.mark.parametrize(
    ("asked", "nodes", "expected"),
    [
        (Execution(cpus=4), [SMALL], None),
        (Execution(cpus=0.5, workers=8), [SMALL], None),
        (Execution(cpus=1, gpus=1, workers=8), [LARGE, SMALL, LARGE], None),
        (Execution(cpus=1, gpus=8), [SMALL, LARGE], "asked 8 GPUs, the largest node has 4"),
        (Execution(cpus=1, gpus=1), [SMALL], "asked 1 GPUs, the largest node has 0"),
        (Execution(cpus=1), [], "asked 1 CPUs, the largest node has 0"),
        (
            Execution(memory_bytes=200 * GIB),
            [SMALL, LARGE],
            "asked 200.0 GiB of memory, the largest node has 128.0",
        ),
        (Execution(cpus=3, workers=3), [SMALL, SMALL], "asked 3 workers, the cluster has room for 2"),
        (Execution(cpus=2, gpus=2, workers=3), [LARGE, SMALL], "asked 3 workers, the cluster has room for 2"),
        (Execution(cpus=20, gpus=4), [{"CPU": 64.0}, {"CPU": 8.0, "GPU": 8.0}],
         "asked 1 workers, the cluster has room for 0"),
    ],
)  # fmt: skip
def test_shortfall(asked, nodes, expected):
    assert shortfall(asked, nodes) == expected
