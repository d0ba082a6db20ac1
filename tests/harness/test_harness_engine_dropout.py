"""Dropout keyed by sample: masks that no micro-batch, worker or recomputation changes."""

import numpy as np
import pytest
import torch
from engine_fixture import RECIPE, TAPS, batches, losses_of, model, objective, run
from transformers import GPT2ForSequenceClassification, LlamaConfig, LlamaForCausalLM

from harness.engine.batches import ExampleBatches
from harness.engine.dropout import SampleDropout, dropouts, key_rows, set_dropout
from harness.engine.objective import ClassificationObjective
from harness.stage import Execution
from methods.recipe import Losses


def dropping(p=0.2, **changes):
    target = objective(**changes)
    set_dropout(target.student, p)
    return target


def llama():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=61, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=16, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def test_a_mask_keeps_the_mean_and_differs_by_row_place_and_seed():
    ones = torch.ones(4, 50, 50)
    drop = SampleDropout(0.2, place=0)
    first = drop(ones)
    kept = first > 0
    assert kept.float().mean().item() == pytest.approx(0.8, abs=0.01)
    assert first[kept].unique().item() == pytest.approx(1.25)
    assert not torch.equal(kept[0], kept[1])
    assert not torch.equal(kept, SampleDropout(0.2, place=1)(ones) > 0)
    drop.first_row = 7 * 2**40
    assert not torch.equal(kept, drop(ones) > 0)
    assert torch.equal(drop.eval()(ones), ones)


def test_rows_keep_their_masks_however_a_batch_is_cut():
    drop = SampleDropout(0.5, place=3)
    whole = drop(torch.ones(4, 9, 5))
    drop.first_row = 2
    assert torch.equal(drop(torch.ones(2, 9, 5)), whole[2:])


@pytest.mark.parametrize("build", [model, llama])
def test_attention_weights_are_dropped_by_row_too(build):
    student = build().train()
    set_dropout(student, 0.3)
    tokens = torch.arange(32).view(4, 8)
    key_rows(dropouts(student), 40)
    whole = student(tokens, use_cache=False).logits
    key_rows(dropouts(student), 42)
    torch.testing.assert_close(student(tokens[2:], use_cache=False).logits, whole[2:])
    torch.manual_seed(1)
    torch.testing.assert_close(student(tokens[2:], use_cache=False).logits, whole[2:])
    key_rows(dropouts(student), 43)
    assert not torch.allclose(student(tokens[2:], use_cache=False).logits, whole[2:])
    for drop in dropouts(student):
        drop.p = 0.3 if drop.place == _attention_place(student) else 0.0
    assert not torch.allclose(student(tokens, use_cache=False).logits, student.eval()(tokens, use_cache=False).logits)


def _attention_place(student):
    return next(m.attn_dropout.place for m in student.modules() if hasattr(m, "attn_dropout"))


def test_the_curve_with_dropout_is_the_same_for_any_micro_batch_and_stage():
    expected = losses_of(run(dropping()))
    assert not np.allclose(expected, losses_of(run(objective())), rtol=1e-3)
    for execution in (
        Execution(micro_batch=2),
        Execution(micro_batch=1, zero_stage=2),
        Execution(micro_batch=4, zero_stage=3, activation_checkpointing=True),
    ):
        np.testing.assert_allclose(losses_of(run(dropping(), execution=execution)), expected, rtol=1e-5)


def test_fine_tuning_with_dropout_too():
    generator = np.random.default_rng(0)
    encoded = [generator.integers(1, 61, length).tolist() for length in generator.integers(2, 9, 12)]
    curves = []
    for micro in (4, 1):
        data = ExampleBatches(encoded, [i % 2 for i in range(12)], 4, seed=3, pad_id=0)
        students = [model(seed, GPT2ForSequenceClassification, num_labels=2) for seed in (0, 1)]
        set_dropout(students[0], 0.2)
        target = ClassificationObjective(*students, Losses(kd=0.5, taps=0.1), TAPS)
        curves.append(losses_of(run(target, data=data, execution=Execution(micro_batch=micro))))
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-5)


def test_no_dropout_leaves_none_whatever_the_configuration_said():
    student = model(resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5).train()
    set_dropout(student, 0.0)
    tokens = torch.arange(8)[None]
    assert torch.equal(student(tokens).logits, student.eval()(tokens).logits)
    assert not dropouts(student)


def test_seeds_draw_other_masks():
    recipe = RECIPE.model_copy(update={"learning_rate": 1e-12})
    first, second = (run(dropping(), steps=1, recipe=recipe, data=_seeded(seed)) for seed in (0, 1))
    plain = [run(objective(), steps=1, recipe=recipe, data=_seeded(seed)) for seed in (0, 1)]
    effects = [a.curve[0]["ce"] - b.curve[0]["ce"] for a, b in zip((first, second), plain, strict=True)]
    assert effects[0] != pytest.approx(effects[1], rel=1e-3)


def _seeded(seed):
    """The same rows in the same order under another seed."""
    data = batches()
    data._order = (0, np.arange(data.windows))
    data.seed = seed
    return data
