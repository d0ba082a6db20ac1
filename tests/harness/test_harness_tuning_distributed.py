"""A trial of a learning rate by one worker and by two."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from methods import student, tiny

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(120)]

WORKER = """
import json, os, sys
from pathlib import Path
import torch
from harness.stage import Context, Execution, NoCheckpoints, Ranks, silent
from harness.stages import tune

torch.set_num_threads(1)
root, stage = Path(sys.argv[1]), int(sys.argv[2])
rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
for rate in (1e-2, 1e10):
    recipe = {"tokens": 512, "batch_tokens": 128, "sequence_length": 16, "learning_rate": rate,
              "losses": {"ce": 0.5, "kd": 0.5}}
    output = root / f"{world}-{stage}-{rate:g}"
    output.mkdir(exist_ok=True)
    result = tune.run(Context(
        params={"recipe": recipe, "seed": 0}, inputs={name: root / name for name in ("student", "teacher", "tokens")},
        output=output, execution=Execution(workers=world, zero_stage=stage), ranks=Ranks(rank, world, rank),
        checkpoints=NoCheckpoints(), progress=silent))
    assert bool(result) == (rank == 0)
"""


def trials(root: Path, world: int, stage: int) -> list[dict]:
    (root / "worker.py").write_text(WORKER)
    command = [sys.executable, str(root / "worker.py"), str(root), str(stage)]
    if world > 1:
        command[1:1] = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={world}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads((root / f"{world}-{stage}-{rate:g}" / "trial.json").read_text()) for rate in (1e-2, 1e10)]


def test_two_workers_try_a_rate_as_one_does(tmp_path: Path) -> None:
    for name in ("student", "teacher"):
        student.save(tiny.teacher("gpt2"), tmp_path / name / "model")
    (tmp_path / "tokens").mkdir()
    np.save(tmp_path / "tokens" / "train.npy", np.random.default_rng(0).integers(0, tiny.VOCAB, 2000).astype(np.uint16))
    one = trials(tmp_path, 1, 0)
    assert one[0]["held_out_loss"] == pytest.approx(np.log(tiny.VOCAB), rel=0.5)
    assert set(one[1]) == {"learning_rate", "diverged_at_step"}
    for stage in (0, 3):
        two = trials(tmp_path, 2, stage)
        assert two[0]["held_out_loss"] == pytest.approx(one[0]["held_out_loss"], rel=1e-5)
        assert two[1] == one[1]
