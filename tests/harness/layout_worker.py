"""One worker of a gang over gloo that trains the fixture's student, and how a test launches such gangs.

    RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=29511 python layout_worker.py '{"out": "...", "runs": [...]}'

A run says `zero_stage`, `micro_batch`, `steps`, `dropout`, and `store` where it checkpoints; rank 0 writes its loss
curve and its final weights below `out`, every rank the step that it is at.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


@contextmanager
def gang(world: int, out: Path, runs: Sequence[dict[str, Any]]) -> Iterator[list[subprocess.Popen[str]]]:
    """The workers of a gang, each with one thread; none outlives the block."""
    workers = _launch(world, out, runs)
    try:
        yield workers
    finally:
        for worker in workers:
            if worker.poll() is None:
                worker.kill()
                worker.communicate()


def _launch(world: int, out: Path, runs: Sequence[dict[str, Any]]) -> list[subprocess.Popen[str]]:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out.mkdir(parents=True, exist_ok=True)
    shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    paths = os.pathsep.join([str(HERE.parents[1]), str(HERE)])
    command = [sys.executable, __file__, json.dumps({"out": str(out), "runs": list(runs)})]
    return [
        subprocess.Popen(
            command, env=os.environ | shared | {"RANK": str(rank), "PYTHONPATH": paths}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for rank in range(world)
    ]  # fmt: skip


def finish(workers: Sequence[subprocess.Popen[str]], timeout_s: float = 300) -> list[tuple[int, str]]:
    """Exit status and output of each worker."""
    ended = []
    for worker in workers:
        said, _ = worker.communicate(timeout=timeout_s)
        ended.append((worker.returncode, said))
    return ended


def complete(world: int, out: Path, runs: Sequence[dict[str, Any]]) -> None:
    """Run a gang that is expected to finish."""
    with gang(world, out, runs) as workers:
        for status, said in finish(workers):
            assert status == 0, said[-4000:]


def curves(world: int, out: Path, runs: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Name of a run -> its losses, from a gang that is expected to finish."""
    complete(world, out, runs)
    return {run["name"]: json.loads((out / f"{run['name']}.json").read_text()) for run in runs}


def _train(out: Path, rank: int, world: int, name: str, steps: int, **options: Any) -> None:
    from engine_fixture import losses_of, objective, run
    from safetensors.torch import save_file

    from harness.engine.dropout import set_dropout
    from harness.stage import Execution, NoCheckpoints, Ranks
    from results.artifacts import Artifacts
    from results.checkpoints import StoredCheckpoints
    from results.store import Store

    target = objective()
    set_dropout(target.student, options.get("dropout", 0.0))
    store, attempt = options.get("store"), options.get("attempt", "a")
    kept = StoredCheckpoints(Artifacts(Store(store)), "distill", "key", attempt) if store else NoCheckpoints()

    def progress(*, done: int, total: int, **numbers: float) -> None:
        (out / f"step-{rank}").write_text(str(done))

    result = run(
        target, steps, checkpoints=kept, ranks=Ranks(rank, world, rank), progress=progress,
        execution=Execution(
            zero_stage=options["zero_stage"], micro_batch=options["micro_batch"], workers=world,
            checkpoint_every_steps=3, collective_timeout_s=20, shard_teacher=options.get("shard_teacher", False),
        ),
    )  # fmt: skip
    if rank == 0:
        save_file({n: p.detach().contiguous() for n, p in target.named_parameters()}, out / f"{name}.safetensors")
        (out / f"{name}.json").write_text(json.dumps(losses_of(result)))


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    for each in asked["runs"]:
        _train(Path(asked["out"]), int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), **each)
