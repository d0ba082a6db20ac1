"""Reported numbers: the file, how mistakes in it are told, the counts, and their place on a board."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from results.board import board
from results.claims import claims
from results.errors import StoreError
from results.json_view import dumps
from results.record import Measured, SizeCard
from results.reported import FILE, collection, parse
from results.reported_view import beside_rows, line
from results.table import as_csv, markdown, terminal

KRONY = "wikitext103v1.window_ppl.v1"
SMALL = """
sources: {krony: {title: Krony-PT, arxiv: "2412.12351"}}
teachers: {gpt2: {aliases: [gpt2]}}
models: {tq: {name: TQ, teacher: gpt2, method: tq}}
tables:
  - source: krony
    where: Table V
    certainty: verified
    columns: [{measure: WikiText, metric: ppl, protocol: wikitext2.x.v1, match: same}]
    values: {tq: [40.28]}
"""


def value(model: str, measure: str, source: str = "", metric: str = "") -> float:
    found = {
        each.value
        for each in collection().numbers
        if each.key == model
        and each.what.startswith(measure)
        and source in each.citation
        and (not metric or metric == each.column.metric)
    }
    (only,) = found
    return only


@pytest.mark.parametrize(
    ("model", "measure", "source", "expected"),
    [
        ("gpt2", "WikiText-103 v1", "Tables V to VIII", 29.16),
        ("krony-81m", "LAMBADA", "Tables V to VIII", 61.02),
        ("krony-96m-prune", "WikiText-2 v1", "Tables V to VIII", 32.19),
        ("krony-96m-epoch", "WikiText-103 v1", "Table VIII", 47.42),
        ("krony-96m-epoch", "WikiText-103 v1", "Table IX", 57.46),
        ("tq", "LAMBADA", "Tables V to VIII", 64.72),
        ("tq", "LAMBADA", "config/ppl.txt", 65.684),
        ("kngpt2", "GLUE test", "2110.08152", 77.42),
        ("kngpt2", "QQP dev", "2110.08152", 90.34),
        ("distilgpt2", "WikiText-103 test, fine-tuned", "README", 21.1),
        ("ttm-64", "WikiText-103 v1 validation", "evaluate_checkpoints", 18.82),
        ("medium-ttm", "STS-B", "data_eval_v2", 77.6),
        ("llama-7b-svd-llm", "WikiText-2 test, removed 60 %", "version", 42.30),
        ("llama-7b-svd-llm", "WikiText-2 test, removed 60 %", "2403.07378), Table 1", 66.62),
        ("opt-1.3b-slicegpt", "WikiText-2 test, mean of sequence means, slice 25 %", "Table 1", 17.46),
        ("gpt2-xl", "WikiText-103, invertible", "llm.c#340", 17.48),
        ("gpt2", "WikiText-2 raw test, 1024", "13761", 29.94),
        ("gpt2", "wikitext, version 2", "lm-eval", 0.9769),
        ("tensorgpt-v2", "whole model", "TensorGPT, v2", 46.89),
    ],
)
def test_values_are_those_of_the_sources(model: str, measure: str, source: str, expected: float) -> None:
    assert value(model, measure, source) == expected


def test_the_rows_of_the_glue_table_have_the_means_that_are_reported() -> None:
    tasks = ("CoLA dev", "RTE dev", "MRPC dev", "SST-2 dev", "MNLI dev", "QNLI dev", "QQP dev")
    for model in ("gpt2", "distilgpt2", "distilgpt2-kd", "kngpt2"):
        mean = sum(value(model, task, "KnGPT2") for task in tasks) / len(tasks)
        assert mean == pytest.approx(value(model, "GLUE dev"), abs=0.011)


def test_every_number_says_where_it_is_from_and_how_sure_it_is() -> None:
    numbers = collection().numbers
    assert len(numbers) > 200
    assert all(each.citation and each.column.measure and each.model.name for each in numbers)
    assert {each.certainty for each in numbers} == {"verified", "second-hand", "unverified"}
    unverified = {each.key for each in numbers if each.citation.endswith("GLUE dev table")}
    assert unverified == {"gpt2", "distilgpt2", "distilgpt2-kd", "kngpt2"}
    by_others = [each for each in numbers if each.key == "kngpt2" and "Krony" in each.citation]
    assert by_others
    assert not any(each.own for each in by_others)
    assert all(each.own for each in numbers if each.key == "tq" and "ppl.txt" in each.citation)


def test_same_protocols_are_ours_and_have_the_metric() -> None:
    from tasks import registry

    known = registry.names()
    named = {(e.column.protocol, e.column.metric) for e in collection().numbers if e.column.protocol}
    for protocol, metric in named - {("glue.kngpt2_average.v1", "score")}:
        assert protocol in known
        assert metric in {each.name for each in registry.load(protocol).metrics}


def test_counts_are_those_that_the_methods_compute() -> None:
    from transformers import GPT2Config

    from methods.families import architecture
    from methods.fields import decode, settle
    from methods.interface import Plan
    from methods.planning import counted

    config = GPT2Config()
    built = {key: each for key, each in collection().models.items() if each.fields and each.teacher == "gpt2"}
    assert {"kngpt2", "tq", "krony-81m", "krony-92m-4", "ttm-16", "distilgpt2"} <= built.keys()
    for key, model in built.items():
        plan = settle(decode(model.method, dict(model.fields))).plan(config, None)
        assert isinstance(plan, Plan), key
        assert model.params == plan.size, key
        assert model.rule is not None
        if model.params_paper is not None:
            assert model.params_paper == counted(architecture(config), plan, model.rule), key
    sizes = {
        "gpt2": (768, 12, 12),
        "gpt2-medium": (1024, 24, 16),
        "gpt2-large": (1280, 36, 20),
        "gpt2-xl": (1600, 48, 25),
    }
    for name, (width, layers, heads) in sizes.items():
        dense = architecture(GPT2Config(n_embd=width, n_layer=layers, n_head=heads))
        assert collection().teachers[name].params == collection().models[name].params == dense.num_params


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("certainty: verified", "certainty: sure", "tables.0.certainty: Input should be 'verified'"),
        ("certainty: verified", "certainti: verified", "tables.0.certainti: unknown key; did you mean 'certainty'?"),
        ("match: same", "match: same, unti: x", "tables.0.columns.0.unti: unknown key; did you mean 'unit'?"),
        ("[40.28]", "[40.28, 1.0]", "tq has 2 values for 1 columns"),
        ("[40.28]", "['40.28']", "tables.0.values.tq.0: Input should be a valid number"),
        ("[40.28]", "[.nan]", "not JSON compliant"),
        ("tq: [40.28]", "tqq: [40.28]", "model 'tqq' is not defined; did you mean 'tq'?"),
        ("source: krony", "source: krny", "source 'krny' is not defined; did you mean 'krony'?"),
        ("teacher: gpt2", "teacher: gpt", "teacher 'gpt' is not defined; did you mean 'gpt2'?"),
        ('"2412.12351"', "2412.12351", "sources.krony.arxiv: Input should be a valid string"),
        ("protocol: wikitext2.x.v1, ", "", "match: same needs the protocol"),
        ("where: Table V", "where: Table V\n    where: Table VI", "line 8, column 5: repeated key 'where'"),
        ("where: Table V", "where: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("tables:", "tables: [", "line 6, column 3"),
        (SMALL, "[]", "Input should be an object"),
        (SMALL, "", "Input should be an object"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_its_place(old: str, new: str, told: str) -> None:
    parse(SMALL)
    with pytest.raises(StoreError) as error:
        parse(SMALL.replace(old, new), "x.yaml")
    assert told in str(error.value)
    assert str(error.value).startswith("x.yaml: ")
    assert "\n" not in str(error.value)


def test_the_file_is_part_of_the_distribution() -> None:
    import tomllib

    root = Path(__file__).parents[2]
    patterns = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["results"]
    assert any(Path(FILE).match(pattern) for pattern in patterns)


def ppl(name: str, number: float) -> Measured:
    return Measured(
        protocol=KRONY, metric="window_ppl", value=number, unit="ppl", higher_is_better=False, main=True,
        data=name, stage_key="e" * 64,
    )  # fmt: skip


def card(params: int) -> SizeCard:
    return SizeCard(
        params=params, params_fraction=params / 124_439_808, params_without_embedding=1, params_without_output=params,
        stored_bytes=4 * params, materialised_bytes=4 * params, macs_per_token=params,
    )  # fmt: skip


@pytest.fixture
def beside(reader: Any, sweep: Any) -> Any:
    for seed in (0, 1):
        measured = [ppl("sha256:wikitext103", 41.0 + seed)]
        sweep.add("aaaaaaaa", "tq", seed=seed, size=card(119_933_764), measured=measured)
        sweep.add("bbbbbbbb", "kronecker", seed=seed, measured=[ppl("sha256:wikitext103", 43.0 + seed)])
    sweep.add("00000000", "identity", budget=None, recipe="none", measured=[ppl("sha256:wikitext103", 29.2)])
    return reader


def test_a_board_shows_what_was_reported_of_its_teacher_and_methods_unranked(beside: Any) -> None:
    (tab,) = board(beside).tabs
    assert {claim.reported.model.method for claim in tab.reported} == {"identity", "tq", "kronecker"}
    (tq,) = [c for c in tab.reported if c.reported.key == "tq" and c.measured and c.match == "same protocol"]
    assert [(each.row, each.same_size) for each in tq.measured] == [("aaaaaaaa", True)]
    assert tq.measured[0].value == pytest.approx((41 * 42) ** 0.5)
    kngpt2 = [
        c for c in tab.reported if c.reported.key == "kngpt2" and c.measured and c.reported.column.match == "same"
    ]
    assert [each.same_size for claim in kngpt2 for each in claim.measured] == [False]
    ranks = {row.id: score.rank for group in tab.groups for row in group.rows for score in row.scores.values()}
    assert set(ranks) == {"aaaaaaaa", "bbbbbbbb"}
    assert all(worst <= 2 for _, worst in ranks.values())
    matches = [claim.reported.column.match for claim in tab.reported]
    assert matches == sorted(matches, key=["same", "unknown", "other"].index)


@pytest.mark.parametrize("teacher", ["pydoc-6x128", "smollm2-135m-q4_1", "gpt2-wikitext2-6x128", "gpt2-medium"])
def test_another_teacher_has_nothing_reported(reader: Any, sweep: Any, teacher: str) -> None:
    first = sweep.add("aaaaaaaa", "tq", measured=[ppl("x", 41.0)])
    reader.clear()
    sweep.add("aaaaaaaa", "tq", measured=[ppl("x", 41.0)], cell=first.cell.model_copy(update={"teacher": teacher}))
    assert [
        claim for tab in board(reader).tabs for claim in tab.reported if claim.reported.model.teacher == "gpt2"
    ] == []
    if teacher != "gpt2-medium":
        assert board(reader).tabs[0].reported == ()


def test_a_teacher_of_another_size_is_not_the_published_one(reader: Any, sweep: Any) -> None:
    sweep.add("aaaaaaaa", "tq", measured=[ppl("x", 41.0)])
    assert board(reader).tabs[0].reported
    sweep.add("00000000", "identity", budget=None, recipe="none", size=card(1_750_000))
    assert board(reader).tabs[0].reported == ()


def test_percentages_are_compared_as_percentages(reader: Any, sweep: Any) -> None:
    sweep.add("00000000", "identity", budget=None, recipe="none", quality=0.0)
    (tab,) = board(reader).tabs
    cola = next(claim for claim in tab.reported if claim.reported.what == "CoLA dev" and claim.measured)
    (score,) = [s for key, s in tab.references[0].scores.items() if key.startswith("glue.cola")]
    assert cola.measured[0].value == pytest.approx(100 * score.summary.value)
    assert cola.reported.value == 47.6


def test_every_form_has_it(beside: Any) -> None:
    found = board(beside)
    console = Console(width=220, file=io.StringIO(), color_system=None)
    console.print(terminal(found))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for told in (text, markdown(found)):
        assert "reported elsewhere" in told
        assert "TQCompressedGPT2" in told
        assert "40.28" in told
        assert "81,336,388" in told
        assert "never ranked" in told
    (tab,) = json.loads(dumps(found))["tabs"]
    tq = next(each for each in tab["reported"] if each["model"] == "TQCompressedGPT2")
    assert tq["params"] == {"printed": "81M", "rule": "without_output_matrix", "paper": 81_336_388, "ours": 119_933_764}
    assert (tq["match"], tq["certainty"], tq["own"]) == ("same", "verified", False)
    lines = list(csv.DictReader(io.StringIO(as_csv(found))))
    told = next(each for each in lines if each["row"] == "aaaaaaaa")[f"{KRONY} window_ppl reported"]
    assert told.startswith(
        "40.28 (TQCompressedGPT2, same size, same protocol, verified: Krony-PT, v2 (arXiv 2412.12351)"
    )
    assert next(each for each in lines if each["row"] == "00000000")[f"{KRONY} window_ppl reported"].startswith("29.16")
    assert len(lines) == 3


def test_what_could_not_be_compared_is_there_and_says_so(beside: Any) -> None:
    (tab,) = board(beside).tabs
    other = [claim for claim in claims(tab) if claim.match == "other protocol"]
    assert other
    assert all("–" in line(claim) for claim in other)
    assert all(row in {"aaaaaaaa", "bbbbbbbb", "00000000"} for row, _ in beside_rows(tab))
