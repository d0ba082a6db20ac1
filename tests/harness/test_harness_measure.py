"""`weighin measure`: one model by protocols, without a sweep and without a store."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from micro_sweep import WORDS, weighin

from methods import student
from methods.interface import Budget, Plan
from methods.svd import Svd
from tasks import registry
from tasks.tokenizer import train

LOCAL = ("--protocol", "local.token_ppl.v1")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(" ".join(WORDS * 12))
    return path


@pytest.fixture(scope="module")
def tokenizer(text: Path) -> Any:
    return train([text.read_text()], 270)


def saved(model: Any, tokenizer: Any, directory: Path) -> Path:
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def gpt2(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face directory with 32 positions."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=270, n_embd=16, n_layer=2, n_head=2, n_positions=32, bos_token_id=0, eos_token_id=0)
    return saved(GPT2LMHeadModel(config), tokenizer, tmp_path_factory.mktemp("gpt2"))


def expected(model: Any, tokenizer: Any, text: Path, name: str = "local.token_ppl.v1") -> Any:
    return registry.load(name).reading(text).measure(model.eval(), tokenizer, None)


def test_a_directory_is_measured_and_says_all_about_the_number(gpt2: Path, tokenizer: Any, text: Path) -> None:
    ended = weighin("measure", gpt2, *LOCAL, "--text", text, "--json")
    assert ended.code == 0, ended.err
    (line,) = ended.data
    found = expected(student.load(gpt2), tokenizer, text)
    assert line["value"] == pytest.approx(found.metrics["ppl"], rel=1e-6)
    assert line["low"] < line["value"] < line["high"]
    assert (line["items"], line["tokens"]) == (len(found.items["item"]), sum(found.items["tokens"]))
    assert line["protocol_facts"]["context_tokens"] == 1024
    assert line["details"]["note"] == "the model has 32 positions: windows of 32 tokens, not 1024"
    assert line["data"].startswith("sha256:")


def test_the_table_has_a_line_per_metric_and_the_notes(gpt2: Path, text: Path) -> None:
    ended = weighin("measure", gpt2, "--text", text, "--batch", 2)
    assert ended.code == 0, ended.err
    for said in ("local.token_ppl.v1", "local.byte_ppl.v1", "word_ppl ↓", "bits_per_byte ↓", "windows of 32 tokens"):
        assert said in ended.out


def test_a_students_directory_is_measured(gpt2: Path, tokenizer: Any, text: Path, tmp_path: Path) -> None:
    teacher = student.load(gpt2)
    plan = Svd().plan(teacher.config, Budget(unit="params", value=0.8))
    assert isinstance(plan, Plan)
    small = Svd().compress(teacher, plan, seed=0, statistics={})
    student.save(small, tmp_path / "student", tokenizer)
    ended = weighin("measure", tmp_path / "student", *LOCAL, "--text", text, "--json")
    assert ended.data[0]["value"] == pytest.approx(expected(small, tokenizer, text).metrics["ppl"], rel=1e-6)


def test_a_model_of_another_family_is_measured(tokenizer: Any, text: Path, tmp_path: Path) -> None:
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(
        vocab_size=270, hidden_size=16, ffn_dim=32, num_hidden_layers=1, num_attention_heads=2, word_embed_proj_dim=16,
        max_position_embeddings=32, pad_token_id=0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = OPTForCausalLM(config)
    ended = weighin("measure", saved(model, tokenizer, tmp_path / "opt"), *LOCAL, "--text", text, "--json")
    assert ended.code == 0, ended.err
    assert ended.data[0]["value"] == pytest.approx(expected(model, tokenizer, text).metrics["ppl"], rel=1e-6)


def test_a_checkpoint_that_lacks_weights_is_refused(tokenizer: Any, text: Path, tmp_path: Path) -> None:
    from transformers import OPTConfig, OPTModel

    config = OPTConfig(
        vocab_size=270, hidden_size=16, ffn_dim=32, num_hidden_layers=1, num_attention_heads=2, word_embed_proj_dim=16,
        max_position_embeddings=32, tie_word_embeddings=False,
    )  # fmt: skip
    ended = weighin("measure", saved(OPTModel(config), tokenizer, tmp_path / "opt"), *LOCAL, "--text", text)
    assert ended.code == 2
    assert "missing keys: lm_head.weight" in ended.err


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three protocols, of which two cannot be had: there is no mirror and the hub may not be asked."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "/nonexistent")
    names = (
        "glue.rte.v1",
        "local.token_ppl.v1",
        "ptb.token_ppl.v1",
        "wikitext2.token_ppl.v1",
        "wikitext2.token_ppl.v2",
    )
    monkeypatch.setattr(registry, "names", lambda: names)


@pytest.mark.usefixtures("few")
def test_all_measures_what_can_be_had_and_says_why_not_the_rest(gpt2: Path, text: Path) -> None:
    ended = weighin("measure", gpt2, "--all", "--text", text, "--json")
    assert ended.code == 0
    problems = {line["protocol"]: line["problem"] for line in ended.data}
    assert set(problems) == {"local.token_ppl.v1", "ptb.token_ppl.v1", "wikitext2.token_ppl.v2"}
    assert problems["local.token_ppl.v1"] == ""
    assert "no mirror given" in problems["wikitext2.token_ppl.v2"]
    assert "not measured  ptb.token_ppl.v1: data set ptb-text-only/ptb_text_only" in weighin(
        "measure", gpt2, "--all", "--text", text
    ).out.replace("\n", " ")


@pytest.mark.usefixtures("few")
def test_all_of_nothing_is_a_failure(gpt2: Path) -> None:
    ended = weighin("measure", gpt2, "--all")
    assert ended.code == 1
    assert "local.token_ppl.v1: no text is named" in ended.out


def test_a_number_that_is_none_is_no_number(gpt2: Path, tokenizer: Any, text: Path, tmp_path: Path) -> None:
    broken = student.load(gpt2)
    with torch.no_grad():
        broken.transformer.ln_f.weight[0] = math.nan
    student.save(broken, tmp_path / "nan", tokenizer)
    ended = weighin("measure", tmp_path / "nan", "--protocol", "local.byte_ppl.v1", *LOCAL, "--text", text, "--json")
    assert ended.code == 1
    assert all("log-likelihood of tokens 1:32 is nan" in line["problem"] for line in ended.data)
    assert all(line["value"] is None for line in ended.data)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{model}"], "measure: say by what: --protocol NAME"),
        (["./nowhere", *LOCAL, "--text", "{text}"], "./nowhere: no such directory"),
        (["{here}", *LOCAL, "--text", "{text}"], "{here}: does not load"),
        (["no/such", *LOCAL, "--text", "{text}"], "model no/such: no mirror given"),
        (["{model}", "--protocol", "local.tokn_ppl.v1"], "did you mean 'local.token_ppl.v1'?"),
        (["{model}", "--protocol", "glue.rte.v1"], "--protocol glue.rte.v1: it is fine-tuned"),
        (["{model}", "--protocol", "ptb.token_ppl.v1"], "config penn_treebank, split test: no mirror given"),
        (["{model}", *LOCAL], "no text is named"),
        (["{model}", *LOCAL, "--text", "nowhere"], "no .jsonl, .parquet, .txt files there"),
        (["{model}", "--protocol", "pydoc.token_ppl.v1", "--text", "{text}"], "--text: is for local.* protocols"),
        (["{model}", "--all", "--mirror", "nowhere"], "--mirror nowhere: no such directory"),
    ],
)
def test_what_cannot_be_carried_out_is_one_line(
    gpt2: Path, text: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    names = {"model": gpt2, "text": text, "here": tmp_path}
    ended = weighin("measure", *(argument.format(**names) for argument in arguments))
    assert ended.code == 2, ended
    assert message.format(**names) in ended.err
    assert len(ended.err.splitlines()) <= 2
    assert ended.out == ""


def test_tasks_says_all_about_one(text: Path) -> None:
    facts = weighin("tasks", "wikitext2v1.window_ppl.v1", "--json").data
    assert (facts["average"], facts["revision"]) == ("over windows", "b08601e04326c79dfdd32d625aee71d232d685c3")
    assert json.loads(json.dumps(facts)) == facts
    assert "over windows" in weighin("tasks", "wikitext2v1.window_ppl.v1").out
    assert weighin("tasks", "glue.rte.v1").code == 0
    assert "did you mean 'glue.rte.v1'?" in weighin("tasks", "glue.rt.v1").err


def test_lm_evals_tasks_are_measured_by_the_names_that_sweeps_use(gpt2: Path, tmp_path: Path) -> None:
    file = tmp_path / "datasets/nyu-mll/glue/sst2/validation-00000-of-00001.parquet"
    file.parent.mkdir(parents=True)
    pq.write_table(pa.table({"sentence": ["a", "b", "c", "d"], "label": [0, 1, 0, 1]}), file)
    ended = weighin("measure", gpt2, "--protocol", "lm_eval:sst2", "--mirror", tmp_path, "--json")
    assert ended.code == 0, ended.err
    (line,) = ended.data
    assert line["protocol"].startswith("lm_eval.sst2.0shot.v1+")
    assert (line["metric"], line["items"], line["protocol_facts"]["regime"]) == ("acc", 4, "zero-shot")
