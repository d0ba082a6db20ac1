"""The order of the data depends on the seed alone."""

import numpy as np
import pytest
import torch

from harness.engine.batches import ExampleBatches, TokenBatches
from harness.stage import StageFailure


def gathered(batches, step, world, micro):
    parts = [part for rank in range(world) for part in batches.micro_batches(step, rank=rank, world=world, micro=micro)]
    return parts, [row for part in parts if part.share for row in part.tensors["input_ids"].tolist()]


@pytest.fixture
def tokens():
    return np.arange(101, dtype=np.uint16)


@pytest.mark.parametrize(("world", "micro"), [(1, 8), (1, 2), (2, 4), (4, 1), (8, 1)])
def test_global_batches_do_not_depend_on_who_computes_them(tokens, world, micro):
    batches = TokenBatches(tokens, 5, 40, seed=3)
    for step in range(4):
        _, expected = gathered(TokenBatches(tokens, 5, 40, seed=3), step, 1, 8)
        parts, rows = gathered(batches, step, world, micro)
        assert rows == expected
        assert sum(part.share for part in parts) == pytest.approx(1)


def test_an_epoch_predicts_each_token_once(tokens):
    batches = TokenBatches(tokens, 5, 20, seed=0)
    targets = [batches.micro_batches(step, rank=0, world=1, micro=4)[0].tensors["targets"] for step in range(5)]
    assert sorted(torch.cat(targets).flatten().tolist()) == list(range(1, 101))


def test_targets_are_the_next_tokens(tokens):
    tensors = TokenBatches(tokens, 5, 20, seed=0).micro_batches(0, rank=0, world=1, micro=4)[0].tensors
    assert torch.equal(tensors["targets"], tensors["input_ids"] + 1)


def test_epochs_and_seeds_differ(tokens):
    batches = TokenBatches(tokens, 5, 100, seed=0)
    first, second = (gathered(batches, step, 1, 20)[1] for step in (0, 1))
    assert first != second
    assert sorted(first) == sorted(second)
    assert first != gathered(TokenBatches(tokens, 5, 100, seed=1), 0, 1, 20)[1]


def test_a_later_first_step_reads_on_in_the_same_stream(tokens):
    whole, rest = TokenBatches(tokens, 5, 40, seed=3), TokenBatches(tokens, 5, 40, seed=3, first_step=3)
    for step in range(4):
        expected, parts = (
            each.micro_batches(at, rank=1, world=2, micro=2) for each, at in ((whole, 3 + step), (rest, step))
        )
        assert [part.first_row for part in parts] == [part.first_row for part in expected]
        for mine, theirs in zip(parts, expected, strict=True):
            assert torch.equal(mine.tensors["input_ids"], theirs.tensors["input_ids"])


def test_token_batches_refuse_what_cannot_be(tokens):
    with pytest.raises(StageFailure, match="multiple of sequence_length 5; nearest: 40"):
        TokenBatches(tokens, 5, 41, seed=0)
    with pytest.raises(StageFailure, match="too few"):
        TokenBatches(tokens[:5], 5, 10, seed=0)


@pytest.fixture
def examples():
    lengths = np.random.default_rng(0).integers(1, 12, size=23)
    return [[number + 1] * int(length) for number, length in enumerate(lengths)], list(range(23))


@pytest.mark.parametrize(("world", "micro"), [(1, 8), (1, 2), (2, 2), (4, 1)])
def test_a_partial_batch_is_weighted_by_its_examples(examples, world, micro):
    batches = ExampleBatches(*examples, 8, seed=0, pad_id=0)
    assert batches.steps(epochs=2) == 6
    parts = [part for r in range(world) for part in batches.micro_batches(2, rank=r, world=world, micro=micro)]
    assert len(parts) == 8 // micro
    weights = {}
    for part in parts:
        for label in part.tensors["labels"].tolist():
            weights[label] = weights.get(label, 0) + part.share / len(part.tensors["labels"])
    assert [weight for weight in weights.values() if weight] == pytest.approx([1 / 7] * 7)


def test_examples_are_padded_right_and_keep_their_labels(examples):
    encoded, labels = examples
    batches = ExampleBatches(encoded, labels, 8, seed=0, pad_id=0)
    seen = []
    for step in range(3):
        for part in batches.micro_batches(step, rank=0, world=1, micro=8):
            for ids, mask, label in zip(
                *(part.tensors[k] for k in ("input_ids", "attention_mask", "labels")), strict=True
            ):
                assert ids[mask.bool()].tolist() == encoded[label]
                assert mask.tolist() == sorted(mask.tolist(), reverse=True)
                seen.append(int(label))
        assert batches.tokens(step) == sum(len(encoded[label]) for label in seen[-(8 if step < 2 else 7) :])
    assert sorted(seen) == labels


def test_bucketing_pads_less_than_shuffling():
    lengths = np.random.default_rng(0).integers(1, 100, size=640)
    batches = ExampleBatches([[1] * int(n) for n in lengths], [0] * 640, 32, seed=0, pad_id=0)
    padded = sum(batches.micro_batches(s, rank=0, world=1, micro=32)[0].tensors["input_ids"].numel() for s in range(20))
    assert lengths.sum() <= padded < 1.2 * lengths.sum()


def test_examples_must_have_tokens_and_labels():
    with pytest.raises(StageFailure, match="example 1 has no tokens"):
        ExampleBatches([[1], []], [0, 1], 2, seed=0, pad_id=0)
    with pytest.raises(StageFailure, match="2 examples and 1 labels"):
        ExampleBatches([[1], [2]], [0], 2, seed=0, pad_id=0)
