"""Training through DeepSpeed in one process: against a plain torch loop, resumed, diverged, refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from engine_fixture import RECIPE, TAPS, Interrupted, Kept, batches, interrupt_at, model, objective, run
from transformers import GPT2ForSequenceClassification

from harness.engine.batches import ExampleBatches
from harness.engine.deepspeed_engine import configuration
from harness.engine.dropout import set_dropout
from harness.engine.flops import forward_flops_per_token, training_flops_per_token
from harness.engine.objective import ClassificationObjective
from harness.engine.shares import micro_batch
from harness.engine.trainer import learning_rate
from harness.stage import Diverged, Execution, StageFailure
from methods.recipe import Losses, Optimisation


def dropping():
    target = objective()
    set_dropout(target.student, 0.1)
    return target


def every(steps, **execution):
    return Execution(checkpoint_every_steps=steps, **execution)


def plain_curve(steps):
    """The same training without DeepSpeed and without chunks."""
    student, teacher = model(0).train(), model(1).eval()
    groups = [[p for p in student.parameters() if p.ndim >= 2], [p for p in student.parameters() if p.ndim < 2]]
    optimizer = torch.optim.AdamW(
        [{"params": groups[0], "weight_decay": 0.1}, {"params": groups[1], "weight_decay": 0}]
    )
    curve = []
    for step in range(steps):
        batch = batches().micro_batches(step, rank=0, world=1, micro=8)[0].tensors
        logits = student(batch["input_ids"]).logits.flatten(0, 1)
        with torch.no_grad():
            teacher_logits = teacher(batch["input_ids"]).logits.flatten(0, 1)
        kl = F.kl_div(F.log_softmax(logits / 2, -1), F.softmax(teacher_logits / 2, -1), reduction="batchmean")
        loss = F.cross_entropy(logits, batch["targets"].flatten()) + 4 * kl
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(RECIPE, step, steps)
        optimizer.step()
        optimizer.zero_grad()
        curve.append(loss.item())
    return curve, student


def test_stage_3_leaves_torch_as_it_was():
    before = torch.nn.functional.linear
    run(objective(), execution=Execution(zero_stage=3))
    assert torch.nn.functional.linear is before


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
@pytest.mark.parametrize("micro", [8, 2])
def test_training_equals_a_plain_torch_loop(zero_stage, micro):
    target = objective(Losses(ce=1.0, kd=1.0))
    result = run(target, steps=12, execution=Execution(zero_stage=zero_stage, micro_batch=micro))
    expected, student = plain_curve(12)
    np.testing.assert_allclose([line["loss"] for line in result.curve], expected, rtol=2e-5)
    for ours, theirs in zip(target.student.parameters(), student.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=2e-4)
    assert target.student.lm_head.weight is target.student.transformer.wte.weight
    assert result.tokens == 12 * 64


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path, zero_stage):
    execution = Execution(zero_stage=zero_stage, micro_batch=4)
    whole_objective, resumed_objective = dropping(), dropping()
    whole = run(whole_objective, execution=execution)
    options = {"execution": replace(execution, checkpoint_every_steps=2), "checkpoints": Kept(tmp_path)}
    with pytest.raises(Interrupted):
        run(dropping(), progress=interrupt_at(5), **options)
    resumed = run(resumed_objective, **options)
    assert resumed.curve == whole.curve
    assert [line["step"] for line in whole.curve] == [1, 2, 3, 4, 5, 6]
    for ours, theirs in zip(resumed_objective.parameters(), whole_objective.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    kept = sorted(path.name for path in (tmp_path / "4").iterdir())
    assert kept == ["exp_avg.safetensors", "exp_avg_sq.safetensors", "state.json", "weight.safetensors"]
    assert json.loads((tmp_path / "4" / "state.json").read_text())["step"] == 4


@pytest.mark.parametrize(("before", "after"), [(3, 0), (0, 2), (1, 3)])
def test_a_checkpoint_resumes_at_another_zero_stage(tmp_path, before, after):
    expected = [line["loss"] for line in run(objective()).curve]
    options = {"checkpoints": Kept(tmp_path)}
    with pytest.raises(Interrupted):
        run(objective(), progress=interrupt_at(4), execution=every(3, zero_stage=before), **options)
    resumed = run(objective(), execution=every(3, zero_stage=after), **options)
    np.testing.assert_allclose([line["loss"] for line in resumed.curve], expected, rtol=1e-6)


def test_bf16_resumes_from_fp32_masters_and_returns_fp32(tmp_path):
    recipe = RECIPE.model_copy(update={"precision": "bf16"})
    whole, resumed = objective(), objective()
    expected = run(whole, recipe=recipe)
    options = {"recipe": recipe, "checkpoints": Kept(tmp_path), "execution": every(2)}
    with pytest.raises(Interrupted):
        run(objective(), progress=interrupt_at(5), **options)
    assert run(resumed, **options).curve == expected.curve
    reference = [line["loss"] for line in run(objective()).curve]
    np.testing.assert_allclose([line["loss"] for line in expected.curve], reference, rtol=0.02)
    assert {p.dtype for p in resumed.student.parameters()} == {torch.float32}
    assert any(not torch.equal(p, p.bfloat16().float()) for p in resumed.student.parameters())


def test_activation_checkpointing_changes_nothing():
    expected = run(objective()).curve
    curve = run(objective(), execution=Execution(activation_checkpointing=True, zero_stage=3)).curve
    np.testing.assert_allclose([line["loss"] for line in curve], [line["loss"] for line in expected], rtol=1e-6)


def test_a_stage_can_be_trained_after_another_in_one_process():
    target = objective()
    run(target, execution=Execution(zero_stage=3))
    assert not [name for module in target.modules() for name in vars(module) if name.startswith("ds_")]
    assert run(target, execution=Execution(zero_stage=0)).curve[-1]["loss"] < 5


def test_a_loss_that_is_not_finite_ends_the_stage_as_diverged():
    target = objective()
    with torch.no_grad():
        target.student.transformer.wte.weight[5] = torch.nan
    with pytest.raises(Diverged, match="not finite at step 1"):
        run(target)


def test_frozen_parameters_stay():
    target = objective()
    frozen = target.student.transformer.wpe.weight.requires_grad_(False).clone()
    run(target, execution=Execution(zero_stage=3))
    assert torch.equal(target.student.transformer.wpe.weight, frozen)
    assert not target.student.transformer.wpe.weight.requires_grad


@pytest.mark.parametrize(("schedule", "last"), [("constant", 1.0), ("linear", 0.1), ("cosine", 0.1)])
def test_schedule_warms_up_and_ends_where_it_says(schedule, last):
    recipe = Optimisation(learning_rate=2.0, schedule=schedule, warmup_fraction=0.1)
    rates = [learning_rate(recipe, step, 100) for step in range(100)]
    assert rates[:2] == pytest.approx([0.2, 0.4])
    assert rates[9] == rates[10] == 2.0
    assert rates[-1] == pytest.approx(2.0 * last)
    assert sorted(rates[10:], reverse=True) == rates[10:]


def test_micro_batches_must_divide_a_workers_share():
    assert micro_batch(batches(), Execution(), 1) == 8
    with pytest.raises(StageFailure, match="shared equally by 3 workers"):
        micro_batch(batches(), Execution(), 3)
    with pytest.raises(StageFailure, match=r"micro_batch 3 does not divide a worker's 8 rows.*nearest: 2"):
        micro_batch(batches(), Execution(micro_batch=3), 1)


def classification(labels, seed=0):
    return model(seed, cls=GPT2ForSequenceClassification, num_labels=labels, initializer_range=0.2)


@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize("micro", [4, 1])
def test_classification_weighs_a_partial_batch_by_examples(labels, micro):
    generator = np.random.default_rng(0)
    encoded = [generator.integers(1, 61, length).tolist() for length in generator.integers(2, 9, 6)]
    values = [0.5, 1.5, 2.5, 0.0, 1.0, 2.0] if labels == 1 else [0, 1, 2, 0, 1, 2]
    data = ExampleBatches(encoded, values, 4, seed=0, pad_id=0, regression=labels == 1)
    target = ClassificationObjective(classification(labels), classification(labels, 1), Losses(kd=0.5, taps=1.0), TAPS)
    student, teacher = classification(labels).eval(), classification(labels, 1).eval()
    quiet = RECIPE.model_copy(update={"learning_rate": 1e-12})
    curve = run(target, steps=2, recipe=quiet, data=data, execution=Execution(micro_batch=micro)).curve
    rows = data.micro_batches(1, rank=0, world=1, micro=4)[0].tensors
    assert len(rows["labels"]) == 2
    with torch.no_grad():
        ours, theirs = (m(rows["input_ids"], attention_mask=rows["attention_mask"]).logits for m in (student, teacher))
    if labels == 1:
        ce, kd = F.mse_loss(ours[:, 0], rows["labels"]), F.mse_loss(ours, theirs)
    else:
        ce = F.cross_entropy(ours, rows["labels"])
        kd = 4 * F.kl_div(F.log_softmax(ours / 2, -1), F.softmax(theirs / 2, -1), reduction="batchmean")
    assert curve[1]["ce"] == pytest.approx(ce.item(), rel=1e-5)
    assert curve[1]["kd"] == pytest.approx(kd.item(), rel=1e-4)
    assert curve[1]["loss"] == pytest.approx(ce.item() + 0.5 * kd.item() + curve[1]["taps"], rel=1e-4)


def test_flops_are_those_of_the_shapes():
    width, layers, length, vocabulary = 16, 2, 8, 61
    weights = layers * 12 * width**2 + vocabulary * width
    attention = layers * 2 * length * width
    assert forward_flops_per_token(model(), length) == 2 * (weights + attention)
    assert training_flops_per_token(model(), model(), length) == 8 * (weights + attention)


class ReadsValues(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x) if bool((x == x).any()) else x


def test_flops_of_a_layer_that_reads_values_are_counted_by_running_it():
    reads, plain = model(), model()
    reads.lm_head = ReadsValues(16, 61, bias=False)
    assert forward_flops_per_token(reads, 8) == forward_flops_per_token(plain, 8)
    assert {parameter.device.type for parameter in reads.parameters()} == {"cpu"}


def test_raw_keys_of_execution_reach_deepspeed():
    raw = {"zero_optimization": {"stage": 2, "reduce_bucket_size": 1000}}
    found = configuration(RECIPE, Execution(zero_stage=1, deepspeed=raw), rows=8, micro=2, accumulation=4)
    expected = {"stage": 2, "reduce_bucket_size": 1000, "stage3_param_persistence_threshold": 0}
    assert found["zero_optimization"] == expected
