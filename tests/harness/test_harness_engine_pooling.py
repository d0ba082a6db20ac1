"""A padded batch says of each text what the text alone does, read at its last position."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from harness.engine.batches import ExampleBatches
from harness.engine.objective import ClassificationObjective
from harness.engine.pooling import last_token_logits
from harness.engine.predict import predict
from harness.stage import StageFailure
from methods.recipe import Losses
from tasks.encoding import encode
from tasks.interface import Examples
from tasks.tokenizer import END, train

TEXTS = ["the cat sat on the mat and the dog ran under the hill", "a dog ran", "", f"{END}", f"a cat {END} sat {END}"]
SECOND = ["", "the small cat sat under a red hill, then the dog ran", "", "a mat", f"{END}{END}"]
LENGTH = 12


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train(TEXTS + SECOND, 270)


def classifier(family: str, pad: int | None = 0, labels: int = 3) -> Any:
    torch.manual_seed(0)
    common = {"vocab_size": 270, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": pad, "num_labels": labels}
    if family == "gpt2":
        shape: dict[str, Any] = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16, "initializer_range": 0.4}
        return GPT2ForSequenceClassification(GPT2Config(**shape, **common)).eval()
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = LlamaConfig(**shape, max_position_embeddings=16, initializer_range=0.4, **common)
    return LlamaForSequenceClassification(config).eval()


def alone(model: Any, ids: list[int]) -> torch.Tensor:
    """Without padding, without a mask, read by hand at the last position."""
    with torch.no_grad():
        hidden = model.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
        return model.score.weight @ hidden


@pytest.mark.parametrize("pad", [0, None, 5])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("second", [None, SECOND])
def test_predictions_are_those_of_each_text_alone(
    tokenizer: Any, family: str, second: list[str] | None, pad: int | None
) -> None:
    """With texts that are too long, empty, or hold the padding token and end with it, whatever the model pads with."""
    encoded = encode(tokenizer, Examples(first=TEXTS, second=second, labels=[0] * 5), LENGTH)
    assert max(encoded.lengths) == LENGTH > min(encoded.lengths)
    assert [ids[-1] for ids in encoded.input_ids].count(encoded.pad_token_id) >= 2
    model = classifier(family, pad)
    expected = torch.stack([alone(model, list(ids)) for ids in encoded.input_ids])
    for batch in (1, 2, 5):
        found = predict(model, encoded.input_ids, encoded.pad_token_id, batch_examples=batch)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_training_reads_student_and_teacher_at_the_same_place(tokenizer: Any, family: str) -> None:
    encoded = encode(tokenizer, Examples(first=TEXTS, second=SECOND, labels=[0, 1, 2, 0, 1]), LENGTH)
    data = ExampleBatches(encoded.input_ids, encoded.labels.tolist(), 5, seed=0, pad_id=encoded.pad_token_id)
    batch = data.micro_batches(0, rank=0, world=1, micro=5)[0].tensors
    rows = [ids[: int(n)].tolist() for ids, n in zip(batch["input_ids"], batch["attention_mask"].sum(-1), strict=True)]
    assert sorted(rows) == sorted(map(list, encoded.input_ids))
    student, teacher = classifier(family), classifier(family)
    with torch.no_grad():
        teacher.score.weight.mul_(2)
        objective = ClassificationObjective(student, teacher, Losses(kd=1.0, temperature=1.0))
        objective(batch)
    ours, theirs = (torch.stack([alone(model, row) for row in rows]) for model in (student, teacher))
    ce = torch.nn.functional.cross_entropy(ours, batch["labels"])
    kd = (theirs.softmax(-1) * (theirs.log_softmax(-1) - ours.log_softmax(-1))).sum(-1).mean()
    assert objective.parts["ce"].item() == pytest.approx(ce.item(), rel=1e-5)
    assert objective.parts["kd"].item() == pytest.approx(kd.item(), rel=1e-4)


def test_transformers_own_rule_reads_another_token() -> None:
    """Why pooling is ours: the library takes the last token that is not the padding one."""
    model, ids, mask = classifier("gpt2"), torch.tensor([[7, 8, 0]]), torch.ones(1, 3, dtype=torch.int64)
    with torch.no_grad():
        theirs = model(input_ids=ids, attention_mask=mask).logits
        ours = last_token_logits(model, ids, mask)
    torch.testing.assert_close(theirs, last_token_logits(model, ids[:, :2], mask[:, :2]).detach())
    assert not torch.allclose(ours, theirs, rtol=1e-2)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_logit_that_is_not_finite_names_its_example(bad: float) -> None:
    model = classifier("gpt2")
    with torch.no_grad():
        model.transformer.wte.weight[9] = bad
    with pytest.raises(StageFailure, match="output for example 2 is NaN or infinite"):
        predict(model, [[7], [8, 7], [9], [7, 9]], 0, batch_examples=2)
