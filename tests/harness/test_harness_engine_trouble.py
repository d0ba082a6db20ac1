"""What can go wrong while training: memory, disks, signals, gradients, checkpoints of another model."""

import os
import signal

import numpy as np
import pytest
import torch
from engine_fixture import RECIPE, Interrupted, Kept, batches, interrupt_at, losses_of, model, objective, run
from safetensors.torch import load_file

from harness.engine.checkpoint import ForeignCheckpoint
from harness.engine.objective import LanguageModelObjective
from harness.stage import Diverged, Execution, OutOfMemory, Preempted
from methods.interface import Tap
from methods.recipe import Losses


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
@pytest.mark.parametrize("clipping", [0.0, 1.0])
def test_a_gradient_that_is_not_finite_ends_the_stage_though_the_loss_is(zero_stage, clipping):
    target = objective()
    bias = target.student.transformer.h[0].ln_1.bias
    bias.register_hook(lambda grad: grad * torch.nan)
    recipe = clipped(clipping)
    with pytest.raises(Diverged, match="gradient norm is not finite at step 1"):
        run(target, recipe=recipe, execution=Execution(zero_stage=zero_stage))


def clipped(clipping):
    return RECIPE.model_copy(update={"gradient_clipping": clipping})


@pytest.mark.parametrize("zero_stage", [0, 2, 3])
def test_the_gradient_norm_is_measured_where_nothing_clips(zero_stage):
    target, plain = objective(), objective()
    batch = batches().micro_batches(0, rank=0, world=1, micro=8)[0].tensors
    plain(batch).backward()
    expected = torch.nn.utils.get_total_norm([p.grad for p in plain.parameters()]).item()
    for clipping in (0.0, 0.1):
        result = run(target, steps=1, recipe=clipped(clipping), execution=Execution(zero_stage=zero_stage))
        assert result.curve[0]["gradient_norm"] == pytest.approx(expected, rel=1e-5)
        target = objective()


class Exhausted(LanguageModelObjective):
    """Runs out of memory with more than so many rows."""

    most = 2

    def forward(self, batch):
        if len(batch["input_ids"]) > self.most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return super().forward(batch)


def test_running_out_of_memory_names_the_next_micro_batch():
    def exhausted():
        return Exhausted(model(0), model(1), Losses(kd=1.0))

    with pytest.raises(OutOfMemory, match=r"out of memory at micro-batch 8 \(DefaultCPUAllocator") as caught:
        run(exhausted())
    assert caught.value.smaller == 4
    expected = losses_of(run(LanguageModelObjective(model(0), model(1), Losses(kd=1.0))))
    np.testing.assert_allclose(losses_of(run(exhausted(), execution=Execution(micro_batch=2))), expected, rtol=1e-6)
    Exhausted.most = 0
    with pytest.raises(OutOfMemory, match="activation_checkpointing need less") as caught:
        run(exhausted(), execution=Execution(micro_batch=1))
    assert caught.value.smaller is None
    Exhausted.most = 2


def ask_to_end_at(step):
    def progress(*, done, total, **numbers):
        if done == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return progress


def test_sigterm_leaves_a_checkpoint_and_the_next_attempt_goes_on(tmp_path):
    expected, before = run(objective()), signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted, match=r"SIGTERM\) after step 3; its checkpoint is kept"):
        run(objective(), checkpoints=Kept(tmp_path), progress=ask_to_end_at(3))
    assert signal.getsignal(signal.SIGTERM) is before
    assert [path.name for path in tmp_path.iterdir()] == ["3"]
    assert run(objective(), checkpoints=Kept(tmp_path)).curve == expected.curve


class Full(Kept):
    """A disk that fills up in the second checkpoint."""

    def writing(self, step):
        if step >= 4:
            raise OSError(28, "No space left on device")
        return super().writing(step)


def test_a_full_disk_costs_a_checkpoint_and_not_the_training(tmp_path):
    expected, said = run(objective()), []
    execution = Execution(checkpoint_every_steps=2)
    result = run(objective(), checkpoints=Full(tmp_path), execution=execution, warn=said.append)
    assert result.curve == expected.curve
    assert said == ["the checkpoint at step 4 could not be written: [Errno 28] No space left on device"]
    with pytest.raises(Preempted, match="the one before it is kept"):
        run(objective(), checkpoints=Full(tmp_path), execution=execution, progress=ask_to_end_at(5))


def checkpointed(tmp_path):
    with pytest.raises(Interrupted):
        run(
            objective(), checkpoints=Kept(tmp_path), execution=Execution(checkpoint_every_steps=2),
            progress=interrupt_at(3),
        )  # fmt: skip
    return tmp_path / "2"


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    checkpointed(tmp_path)
    for changes, says in (
        ({"n_embd": 24}, r"wte.weight is \(61, 16\) there and \(61, 24\) here"),
        ({"n_layer": 3}, r"it has no student.transformer.h.2"),
        ({"n_layer": 1}, r"it has student.transformer.h.1"),
    ):
        foreign = LanguageModelObjective(model(0, **changes), None, Losses())
        with pytest.raises(ForeignCheckpoint, match=rf"checkpoint .*2 is of another model: .*{says}.*; remove it"):
            run(foreign, checkpoints=Kept(tmp_path))


def test_a_checkpoint_that_cannot_be_read_is_a_clear_line(tmp_path):
    directory = checkpointed(tmp_path)
    whole = (directory / "exp_avg.safetensors").read_bytes()
    (directory / "exp_avg.safetensors").write_bytes(whole[:100])
    with pytest.raises(ForeignCheckpoint, match=r"checkpoint .*2 cannot be read: .*; remove it"):
        run(objective(), checkpoints=Kept(tmp_path))


def test_a_learned_projection_is_checkpointed_and_left_behind(tmp_path):
    tap = Tap(teacher="transformer.h.1", student="transformer.h.0", project=True)

    def projecting():
        return LanguageModelObjective(model(0, n_embd=8), model(1), Losses(taps=1.0), [tap])

    whole, resumed = projecting(), projecting()
    expected = run(whole)
    with pytest.raises(Interrupted):
        run(
            projecting(), checkpoints=Kept(tmp_path), execution=Execution(checkpoint_every_steps=2),
            progress=interrupt_at(3),
        )  # fmt: skip
    assert "projections.0.weight" in load_file(tmp_path / "2" / "weight.safetensors")
    assert run(resumed, checkpoints=Kept(tmp_path)).curve == expected.curve
    before, after = projecting().projections["0"].weight, resumed.projections["0"].weight
    assert not torch.equal(before, after)
    stage3 = run(projecting(), execution=Execution(zero_stage=3))
    np.testing.assert_allclose(losses_of(stage3), losses_of(expected), rtol=1e-5)


def test_a_sharded_teacher_teaches_the_same():
    expected = losses_of(run(objective()))
    sharded = run(objective(), execution=Execution(zero_stage=3, shard_teacher=True))
    np.testing.assert_allclose(losses_of(sharded), expected, rtol=1e-6)
