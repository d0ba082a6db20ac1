"""One worker and two give the same training; checkpoints cross world sizes and ZeRO stages."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from layout_worker import curves as layout_curves

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(180)]

WORKER = """
import json, os, sys, warnings
from contextlib import contextmanager
from pathlib import Path
import numpy as np, torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel
from harness.engine.batches import TokenBatches
from harness.engine.objective import LanguageModelObjective
from harness.engine.trainer import train
from harness.stage import Diverged, Execution, NoCheckpoints, Ranks
from methods.interface import Tap
from methods.recipe import Losses, Optimisation

torch.set_num_threads(1)
root = Path(sys.argv[1])
rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
ranks = Ranks(rank, world, rank)

class Embedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Parameter(torch.randn(61, 6) * 0.2), nn.Parameter(torch.randn(6, 16))
    def forward(self, tokens):
        return self.left[tokens] @ self.right

class Head(nn.Module):
    def __init__(self, emb):
        super().__init__()
        self.__dict__["emb"] = emb
    weight = property(lambda self: self.emb.left @ self.emb.right)
    def forward(self, hidden):
        return hidden @ self.weight.T

def model(seed, factorised=False):
    torch.manual_seed(seed)
    config = GPT2Config(vocab_size=61, n_embd=16, n_layer=2, n_head=2, n_positions=16, resid_pdrop=0.0, embd_pdrop=0.0,
                        attn_pdrop=0.0, bos_token_id=0, eos_token_id=0)
    built = GPT2LMHeadModel(config)
    if factorised:
        built.set_input_embeddings(Embedding())
        built.lm_head = Head(built.transformer.wte)
    return built

TAPS = [Tap(teacher="transformer.h.1", student="transformer.h.1"),
        Tap(teacher="transformer.h.1.attn", student="transformer.h.1.attn", kind="attention", loss="kl")]

class Kept:
    def __init__(self, path): self.path = path
    def latest(self):
        done = sorted(self.path.glob("*"), key=lambda p: int(p.name))
        return (int(done[-1].name), done[-1]) if done else None
    @contextmanager
    def writing(self, step):
        assert rank == 0
        (self.path / str(step)).mkdir(parents=True)
        yield self.path / str(step)

class Interrupted(Exception): pass
def stop(*, done, total, **numbers):
    if done == 6: raise Interrupted

def run(stage, checkpoints=NoCheckpoints(), factorised=False, steps=50, **options):
    raw = {"zero_optimization": {"stage3_param_persistence_threshold": 0}}
    recipe = Optimisation(learning_rate=3e-3, deepspeed=raw)
    target = LanguageModelObjective(model(0, factorised), model(1), Losses(ce=1.0, kd=1.0, taps=0.5), TAPS)
    data = TokenBatches(np.random.default_rng(0).integers(0, 61, 1000), 8, 64, seed=0)
    execution = Execution(zero_stage=stage, micro_batch=2, checkpoint_every_steps=5)
    result = train(target, data, recipe, steps, execution=execution, ranks=ranks, checkpoints=checkpoints, **options)
    total = sum(p.double().abs().sum().item() for p in target.parameters())
    return {"loss": [line["loss"] for line in result.curve], "weights": total}

def whole_curves():
    for stage in (0, 1, 2, 3):
        yield f"curve{stage}", run(stage)
        yield f"factorised{stage}", run(stage, factorised=True, steps=10)
    yield "whole", run(0, steps=10)

def interrupted_curves():
    for stage in (0, 3):
        try:
            run(stage, Kept(root / f"kept{world}" / str(stage)), steps=10, progress=stop)
            raise SystemExit("not interrupted")
        except Interrupted:
            pass

def resumed_curves():
    for before, after in ((3, 0), (0, 3)):
        yield f"resumed{before}{after}", run(after, Kept(root / f"kept{3 - world}" / str(before)), steps=10)

out = {}
if "whole" in sys.argv: out |= dict(whole_curves())
if "interrupt" in sys.argv: interrupted_curves()
if "resume" in sys.argv: out |= dict(resumed_curves())
if rank == 0:
    (root / "out.json").write_text(json.dumps(out))
"""


def launch(root: Path, world: int, *parts: str) -> dict[str, dict]:
    script = root / "worker.py"
    script.write_text(WORKER)
    checkout = Path(__file__).parents[2]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout)}
    command = [sys.executable, str(script), str(root), *parts]
    if world > 1:
        command[1:1] = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={world}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((root / "out.json").read_text())


@pytest.fixture(scope="module")
def curves(tmp_path_factory):
    root = tmp_path_factory.mktemp("worlds")
    two = launch(root, 2, "whole", "interrupt")
    one = launch(root, 1, "whole", "interrupt", "resume")
    return one, two | launch(root, 2, "resume")


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("student", ["curve", "factorised"])
def test_two_workers_and_one_give_the_same_curve(curves, student, stage):
    one, two = (world[f"{student}{stage}"] for world in curves)
    np.testing.assert_allclose(two["loss"], one["loss"], rtol=1e-5)
    np.testing.assert_allclose(two["loss"], curves[0][f"{student}0"]["loss"], rtol=1e-5)
    assert two["weights"] == pytest.approx(one["weights"], rel=1e-4)
    assert one["loss"][-1] < one["loss"][0]


@pytest.mark.parametrize("stages", ["30", "03"])
@pytest.mark.parametrize("world", [1, 2])
def test_a_checkpoint_resumes_at_another_world_size_and_stage(curves, world, stages):
    resumed = curves[world - 1][f"resumed{stages}"]["loss"]
    assert len(resumed) == 10
    np.testing.assert_allclose(resumed, curves[0]["whole"]["loss"], rtol=1e-6)


def test_dropout_and_a_sharded_teacher_give_the_same_curve_on_two_workers(tmp_path):
    runs = [
        {"name": f"zero {stage}", "steps": 20, "zero_stage": stage, "micro_batch": 2, "dropout": 0.1}
        | {"shard_teacher": stage == 3}
        for stage in (0, 3)
    ]
    one, two = (layout_curves(world, tmp_path / str(world), runs) for world in (1, 2))
    for curve in (one["zero 3"], *two.values()):
        np.testing.assert_allclose(curve, one["zero 0"], rtol=1e-5)
