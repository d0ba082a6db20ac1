"""Taps record what transformers itself reports, and refuse what cannot be compared."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from harness.engine.objective import LanguageModelObjective
from harness.engine.taps import recording, tap_loss
from harness.stage import StageFailure
from methods.interface import Tap
from methods.recipe import Losses


def gpt2(width=8, seed=0, heads=2):
    torch.manual_seed(seed)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=31,
            n_embd=width,
            n_layer=2,
            n_head=heads,
            n_positions=16,
            bos_token_id=0,
            eos_token_id=0,
            initializer_range=0.3,
        )
    ).eval()


def llama(seed=0):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=31, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=16, bos_token_id=0, eos_token_id=0, initializer_range=0.3,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5, 0, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0]])


def compare(student, teacher, tap, mask):
    with torch.no_grad(), recording(student, [tap], "student") as ours, recording(teacher, [tap], "teacher") as theirs:
        for model in (student, teacher):
            model(TOKENS, attention_mask=mask, use_cache=False)
    return tap_loss(tap, ours, theirs, mask)


@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize(("build", "path"), [(gpt2, "transformer.h.1.attn"), (llama, "model.layers.1.self_attn")])
def test_attention_taps_compare_the_maps_that_eager_attention_returns(build, path, mask):
    student, teacher = build(seed=0), build(seed=1)
    tap = Tap(teacher=path, student=path, kind="attention", loss="kl")
    ours = compare(student, teacher, tap, mask)
    maps = []
    for model in (student, teacher):
        model.set_attn_implementation("eager")
        with torch.no_grad():
            maps.append(model(TOKENS, attention_mask=mask, output_attentions=True).attentions[1].double())
    terms = torch.where(maps[1] > 0, maps[1] * (maps[1].clamp(min=1e-300).log() - maps[0].clamp(min=1e-300).log()), 0)
    rows_BT = terms.sum(-1).mean(1)
    expected = rows_BT.mean() if mask is None else ((rows_BT * mask).sum(1) / mask.sum(1)).mean()
    assert ours.item() == pytest.approx(expected.item(), rel=1e-4)
    assert ours.item() > 0


@pytest.mark.parametrize("mask", [None, MASK])
def test_output_taps_compare_hidden_states(mask):
    student, teacher = gpt2(seed=0), gpt2(seed=1)
    ours = compare(student, teacher, Tap(teacher="transformer.h.0", student="transformer.h.0"), mask)
    with torch.no_grad():
        s, t = (m(TOKENS, attention_mask=mask, output_hidden_states=True).hidden_states[1] for m in (student, teacher))
    rows_BT = (s - t).square().mean(-1)
    expected = rows_BT.mean() if mask is None else ((rows_BT * mask).sum(1) / mask.sum(1)).mean()
    assert ours.item() == pytest.approx(expected.item(), rel=1e-5)


def test_recording_leaves_the_model_as_it_was():
    model = gpt2()
    before, expected = model.config._attn_implementation, model(TOKENS).logits
    tap = Tap(teacher="transformer.h.1.attn", student="transformer.h.1.attn", kind="attention", loss="kl")
    with recording(model, [tap], "student") as seen:
        torch.testing.assert_close(model(TOKENS).logits, expected)
    assert seen.attention
    assert model.config._attn_implementation == before
    seen.attention.clear()
    model(TOKENS)
    assert not seen.attention


def test_attention_taps_reach_the_student_by_gradient():
    tap = Tap(teacher="transformer.h.1.attn", student="transformer.h.0.attn", kind="attention", loss="kl")
    objective = LanguageModelObjective(gpt2(seed=0), gpt2(seed=1), Losses(ce=0.0, taps=1.0), [tap])
    objective({"input_ids": TOKENS, "targets": TOKENS}).backward()
    h0, h1 = objective.student.transformer.h
    assert h0.attn.c_attn.weight.grad.abs().sum() > 0
    assert h1.attn.c_attn.weight.grad is None or h1.attn.c_attn.weight.grad.abs().sum() == 0


@pytest.mark.parametrize("loss", ["mse", "cosine"])
def test_a_projection_compares_students_of_another_width_and_learns(loss):
    tap = Tap(teacher="transformer.h.1", student="transformer.h.0", loss=loss, project=True)
    objective = LanguageModelObjective(gpt2(seed=0), gpt2(width=12, seed=1), Losses(ce=0.0, taps=1.0), [tap])
    (projection,) = objective.projections.values()
    assert projection.weight.shape == (12, 8)
    value = objective({"input_ids": TOKENS, "targets": TOKENS})
    with torch.no_grad():
        s, t = (m(TOKENS, output_hidden_states=True).hidden_states for m in (objective.student, objective.teacher))
        mapped, theirs = s[1] @ projection.weight.T, objective.teacher.transformer.h[1](t[1])
        theirs = theirs[0] if isinstance(theirs, tuple) else theirs
        rows = (mapped - theirs).square().mean(-1)
        if loss == "cosine":
            rows = 1 - (mapped * theirs).sum(-1) / mapped.norm(dim=-1) / theirs.norm(dim=-1)
    assert value.item() == pytest.approx(rows.mean().item(), rel=1e-5)
    value.backward()
    assert projection.weight.grad.abs().sum() > 0
    assert "projections.0.weight" in dict(objective.named_parameters())
    assert not any("projection" in name for name in objective.student.state_dict())


@pytest.mark.parametrize(
    ("tap", "message"),
    [
        (
            Tap(
                teacher="transformer.h.0.attn",
                student="transformer.h.0.attn",
                kind="attention",
                loss="kl",
                project=True,
            ),
            "no width to project",
        ),
        (Tap(teacher="transformer.h.7", student="transformer.h.0"), r"teacher has no module 'transformer.h.7'.*: 0, 1"),
        (Tap(teacher="transformer.h.0", student="transformer.h.0"), "widths differ: teacher 12, student 8"),
        (
            Tap(teacher="transformer.h.0.attn", student="transformer.h.0.attn", kind="attention", loss="kl"),
            "numbers of heads differ: teacher 3, student 2",
        ),
        (
            Tap(teacher="transformer.h.0.attn", student="transformer.h.0.attn", kind="attention"),
            "compared by kl, not mse",
        ),
        (
            Tap(teacher="transformer.h.0.mlp", student="transformer.h.0.mlp", kind="attention", loss="kl"),
            "not an attention",
        ),
    ],
)
def test_taps_that_cannot_work_fail_at_the_start(tap, message):
    with pytest.raises(StageFailure, match=message):
        LanguageModelObjective(gpt2(), gpt2(width=12, heads=3), Losses(taps=1.0), [tap])


def test_a_teacher_is_required_and_stays_outside():
    with pytest.raises(StageFailure, match="need a teacher"):
        LanguageModelObjective(gpt2(), None, Losses(kd=1.0))
    objective = LanguageModelObjective(gpt2(), gpt2(seed=1), Losses(kd=1.0))
    assert all(name.startswith("student.") for name, _ in objective.named_parameters())
    assert not any(p.requires_grad for p in objective.teacher.parameters())
    objective.train()
    assert not objective.teacher.training
