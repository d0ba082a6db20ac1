"""What training took of each row, and the learning rates tried for it, in words."""

from __future__ import annotations

from typing import Any

import pytest

from results.board import board
from results.model import Row
from results.record import StageCost, Trial, Tuning
from results.training import training_facts


def costs(row: str, seed: int, *spent: tuple[str, int]) -> list[StageCost]:
    return [
        StageCost(stage=stage, key=f"{row}-{seed}-{place}", worker_s=1, tokens=tokens, flops=1e6 * tokens)
        for place, (stage, tokens) in enumerate(spent)
    ]


def tuning(chosen: float | None, *losses: float | None) -> Tuning:
    return Tuning(
        learning_rate=chosen,
        trials=[
            Trial(
                learning_rate=10.0 ** (place - 3),
                held_out_loss=loss,
                diverged_at_step=None if loss else 2,
                tokens=1000,
                flops=1e9,
            )
            for place, loss in enumerate(losses)
        ],
    )


def row(reader: Any, name: str) -> Row:
    (found,) = (each for tab in board(reader).tabs for each in tab.rows if each.id == name)
    return found


def test_trials_and_the_training_after_them_count_for_the_row(reader: Any, sweep: Any) -> None:
    spent = [("teacher", 10**6), ("tune", 1000), ("tune", 1000), ("distill", 8000), ("finetune", 10**6)]
    sweep.add("00aaaaaa", "svd", costs=costs("00aaaaaa", 0, *spent))
    (seed,) = row(reader, "00aaaaaa").seeds
    assert (seed.tokens, seed.flops) == (10_000, 1e10)
    assert training_facts(row(reader, "00aaaaaa")) == {"trained on": "10k tokens, 10B FLOPs a seed"}


def test_a_row_that_does_not_train_has_nothing_to_say(reader: Any, sweep: Any) -> None:
    sweep.add("00aaaaaa", "svd", recipe="none", costs=costs("00aaaaaa", 0, ("compress", 0)))
    assert training_facts(row(reader, "00aaaaaa")) == {}


@pytest.mark.parametrize(
    ("by_seed", "text"),
    [
        ([[tuning(0.01, 3.0, 2.5)]], "2 rates, 2k tokens, 2B FLOPs a seed; chose 0.01 (seed 0)"),
        (
            [[tuning(0.01, 3.0, 2.5, None)], [tuning(0.001, 2.0, 2.5, 4.0)]],
            "3 rates, 3k tokens, 3B FLOPs a seed; chose 0.01 (seed 0), 0.001 (seed 1); diverged: 0.1 (seed 0)",
        ),
        (
            [[tuning(0.01, 3.0, 2.5), tuning(0.001, 2.0, 2.5)]],
            "2 rates in each of 2 phases, 4k tokens, 4B FLOPs a seed; chose 0.01 then 0.001 (seed 0)",
        ),
        ([[tuning(None, None, None)]], "2 rates, 2k tokens, 2B FLOPs a seed; diverged: 0.001 and 0.01 (seed 0)"),
    ],
)
def test_tuning_in_words(reader: Any, sweep: Any, by_seed: list[list[Tuning]], text: str) -> None:
    for seed, found in enumerate(by_seed):
        sweep.add("00aaaaaa", "svd", seed=seed, tuning=found)
    assert training_facts(row(reader, "00aaaaaa"))["tuning"] == text


def test_a_note_where_rows_of_a_recipe_saw_unequal_tokens(reader: Any, sweep: Any) -> None:
    sweep.add("00aaaaaa", "svd", costs=costs("00aaaaaa", 0, ("distill", 12_000)))
    sweep.add("01aaaaaa", "kronecker", costs=costs("01aaaaaa", 0, ("distill", 9000)))
    sweep.add("02aaaaaa", "tq", recipe="paper", costs=costs("02aaaaaa", 0, ("distill", 50_000)))
    sweep.add("03aaaaaa", "dsee", status="failed", reason="x", costs=costs("03aaaaaa", 0, ("distill", 0)))
    (tab,) = board(reader).tabs
    (note,) = tab.notes
    assert note.startswith("recipe shared: training tokens a seed: ")
    assert sorted(note.rpartition(": ")[2].split(", ")) == ["kronecker 9k", "svd 12k"]


def test_no_note_where_tokens_are_equal(finished: Any) -> None:
    assert all(tab.notes == () for tab in board(finished).tabs)
