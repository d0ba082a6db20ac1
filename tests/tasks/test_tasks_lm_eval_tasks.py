from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from sklearn.metrics import matthews_corrcoef

from tasks import hub, registry
from tasks.interface import DataError
from tasks.lm_eval_task import LmEvalTask

GLUE = "nyu-mll/glue"
SENTENCES = ["the cat sat", "a dog ran .", "red hill", "the mat , then a cat", "quickly under", "small and red"]
LABELS = [0, 1, 1, 0, 1, 0]


@pytest.fixture(scope="module")
def reader() -> Any:
    """A random GPT-2 with room for prompts."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(1)
    shape = {"vocab_size": 290, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 320}
    return GPT2LMHeadModel(GPT2Config(**shape, initializer_range=0.3, bos_token_id=0, eos_token_id=0)).eval()


def target_nll(model: Any, tokenizer: Any, prompt: str, target: str) -> tuple[float, bool]:
    """-log p(target | prompt) in float64, and whether each of its tokens is the likeliest."""
    given, whole = tokenizer(prompt)["input_ids"], tokenizer(prompt + target)["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([whole])).logits[0].double().numpy()
    places = range(len(given), len(whole))
    nll = -sum(log_softmax(logits[place - 1])[whole[place]] for place in places)
    return float(nll), all(logits[place - 1].argmax() == whole[place] for place in places)


def chosen(model: Any, tokenizer: Any, prompt: str, choices: Sequence[str], per: Sequence[int] | None = None) -> int:
    """The choice of least negative log-likelihood, divided by `per`."""
    nll = [target_nll(model, tokenizer, prompt, f" {choice}")[0] for choice in choices]
    return int(np.argmin(np.array(nll) / (per or [1] * len(choices))))


@pytest.fixture
def sst2(write_split: Callable[..., Path]) -> Path:
    return write_split(GLUE, "sst2", "validation", sentence=SENTENCES, label=LABELS, idx=range(6))


def test_multiple_choice_equals_a_computation_by_hand(reader: Any, tokenizer: Any, sst2: Path):
    task = registry.load("lm_eval:sst2")
    task.check(sst2)
    found = task.measure(reader, tokenizer, sst2)
    prompts = [f"{text}\nQuestion: Is this sentence positive or negative?\nAnswer:" for text in SENTENCES]
    right = [
        float(chosen(reader, tokenizer, prompt, ["negative", "positive"]) == label)
        for prompt, label in zip(prompts, LABELS, strict=True)
    ]
    assert found.items["correct"] == found.items["acc"] == right
    assert found.metrics == {"acc": np.mean(right)}
    assert found.items["item"] == ["0", "1", "2", "3", "4", "5"]
    assert (found.details["context"], found.details["requests_cut"]) == (320, 0)


def test_matthews_is_that_of_the_classes(reader: Any, tokenizer: Any, write_split: Callable[..., Path]):
    mirror = write_split(GLUE, "cola", "validation", sentence=SENTENCES, label=LABELS, idx=range(6))
    found = registry.load("lm_eval:cola").measure(reader, tokenizer, mirror)
    prompts = [f"{text}\nQuestion: Does this sentence make sense?\nAnswer:" for text in SENTENCES]
    classes = [chosen(reader, tokenizer, prompt, ["no", "yes"]) for prompt in prompts]
    assert (found.items["prediction"], found.items["label"]) == (classes, LABELS)
    assert found.metrics["mcc"] == pytest.approx(matthews_corrcoef(LABELS, classes))


def test_two_accuracies_have_their_own_items(reader: Any, tokenizer: Any, write_split: Callable[..., Path]):
    endings = [["the mat", "a small red hill under the dog"], ["quickly .", "the cat and then the mat"]]
    mirror = write_split(
        "baber/piqa", "data", "validation", goal=SENTENCES[:2], sol1=[e[0] for e in endings],
        sol2=[e[1] for e in endings], label=[0, 1],
    )  # fmt: skip
    found = registry.load("lm_eval:piqa").measure(reader, tokenizer, mirror)
    for name, per in (("acc", [[1, 1]] * 2), ("acc_norm", [[len(end) for end in each] for each in endings])):
        asked = [(f"Question: {goal}\nAnswer:", *rest) for goal, *rest in zip(SENTENCES, endings, per, strict=False)]
        guesses = [chosen(reader, tokenizer, *each) for each in asked]
        assert found.items[name] == [float(guess == label) for guess, label in zip(guesses, [0, 1], strict=True)]
        assert found.metrics[name] == np.mean(found.items[name])


def test_last_words_have_perplexity_and_accuracy(reader: Any, tokenizer: Any, documents: list[str], write_split: Any):
    mirror = write_split("EleutherAI/lambada_openai", "default", "test", text=documents[:5])
    found = registry.load("lm_eval:lambada_openai").measure(reader, tokenizer, mirror)
    scores = [target_nll(reader, tokenizer, *_last_word(text)) for text in documents[:5]]
    np.testing.assert_allclose(found.items["nll"], [nll for nll, _ in scores], rtol=1e-5)
    assert found.metrics["perplexity"] == pytest.approx(math.exp(np.mean([nll for nll, _ in scores])), rel=1e-4)
    assert found.metrics["acc"] == np.mean([greedy for _, greedy in scores])


def _last_word(text: str) -> tuple[str, str]:
    start, _, last = text.rpartition(" ")
    return start, f" {last}"


@pytest.mark.parametrize("task", ["lambada_openai", "sst2"])
def test_the_batch_changes_nothing(
    task: str, reader: Any, tokenizer: Any, documents: list[str], sst2: Path, write_split: Any
):
    mirror = write_split("EleutherAI/lambada_openai", "default", "test", text=documents[:7])
    measured = []
    for batch in (1, 4):
        each = LmEvalTask(task=task)
        each.batch_requests = batch
        measured.append(each.measure(reader, tokenizer, mirror))
    assert measured[0].metrics == pytest.approx(measured[1].metrics, rel=1e-6)
    for column in ("nll", "correct"):
        if column in measured[0].items:
            np.testing.assert_allclose(measured[0].items[column], measured[1].items[column], rtol=1e-6)


def test_examples_in_the_prompt_are_drawn_by_lm_evals_seed(
    reader: Any, tokenizer: Any, sst2: Path, write_split: Callable[..., Path]
):
    train = ["a red cat", "the hill ran", "then a mat", "dog , dog"]
    write_split(GLUE, "sst2", "train", sentence=train, label=[1, 0, 0, 1], idx=range(4))
    found = LmEvalTask(task="sst2", num_fewshot=1).measure(reader, tokenizer, sst2)
    words, draw = ["negative", "positive"], random.Random(1234)
    right = []
    for text, label in zip(SENTENCES, LABELS, strict=True):
        row = draw.sample(range(4), 1)[0]
        shown = (
            f"{train[row]}\nQuestion: Is this sentence positive or negative?\nAnswer: {words[[1, 0, 0, 1][row]]}\n\n"
        )
        prompt = f"{shown}{text}\nQuestion: Is this sentence positive or negative?\nAnswer:"
        right.append(float(chosen(reader, tokenizer, prompt, words) == label))
    assert found.items["correct"] == right
    assert found.details["num_fewshot"] == {"sst2": 1}


def test_a_group_averages_over_its_tasks(reader: Any, tokenizer: Any, write_split: Callable[..., Path]):
    for config, rows in (("wmdp-bio", 1), ("wmdp-chem", 2), ("wmdp-cyber", 5)):
        choices = [["the cat", "a dog", "red", "hill ."]] * rows
        mirror = write_split(
            "cais/wmdp", config, "test", question=SENTENCES[:rows], choices=choices, answer=[0, 1, 2, 3, 0][:rows]
        )
    found = registry.load("lm_eval:wmdp").measure(reader, tokenizer, mirror)
    assert found.items["item"][:2] == ["wmdp_bio/0", "wmdp_chem/0"]
    assert found.metrics["acc"] == pytest.approx(np.mean(found.items["correct"]))
    parts = found.details["tasks"]
    assert found.metrics["acc"] == pytest.approx(
        (parts["wmdp_bio"]["acc"] + 2 * parts["wmdp_chem"]["acc"] + 5 * parts["wmdp_cyber"]["acc"]) / 8
    )


def test_generation_is_greedy_and_each_filter_is_a_metric(
    reader: Any, tokenizer: Any, write_split: Callable[..., Path]
):
    answer = "so\n#### 4"
    mirror = write_split("openai/gsm8k", "main", "test", question=SENTENCES[:2], answer=[answer] * 2)
    found = LmEvalTask(task="gsm8k", num_fewshot=0).measure(reader, tokenizer, mirror)
    assert set(found.metrics) == {"exact_match,strict-match", "exact_match,flexible-extract"}
    assert found.items["exact_match,strict-match"] == [0.0, 0.0]


def test_a_context_that_leaves_no_room_to_answer_is_refused(model: Any, tokenizer: Any, write_split: Any):
    mirror = write_split("openai/gsm8k", "main", "test", question=SENTENCES[:2], answer=["#### 4"] * 2)
    with pytest.raises(DataError, match=r"requested max tokens to generate \(256\) must be less than .* \(32\)"):
        LmEvalTask(task="gsm8k", num_fewshot=0).measure(model, tokenizer, mirror)


def test_prompts_that_were_cut_are_counted(model: Any, tokenizer: Any, sst2: Path):
    found = registry.load("lm_eval:sst2").measure(model, tokenizer, sst2)
    assert (found.details["context"], found.details["requests_cut"]) == (32, 12)


def test_is_quiet_and_leaves_tokenizer_and_generators_alone(
    reader: Any, tokenizer: Any, sst2: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    bare = copy.deepcopy(tokenizer)
    bare.pad_token = None
    before = (random.getstate(), torch.get_rng_state().tolist(), np.random.get_state()[1].tolist())  # type: ignore[index]
    registry.load("lm_eval:sst2").measure(reader, bare, sst2)
    after = (random.getstate(), torch.get_rng_state().tolist(), np.random.get_state()[1].tolist())  # type: ignore[index]
    assert before == after
    assert bare.pad_token is None
    assert (*capfd.readouterr(), caplog.text) == ("", "", "")


def test_the_fingerprint_is_of_the_files_that_are_read(sst2: Path, write_split: Callable[..., Path]):
    task = registry.load("lm_eval:sst2")
    before = task.fingerprint(sst2)
    write_split(GLUE, "sst2", "train", sentence=["a"], label=[1], idx=[0])
    assert task.fingerprint(sst2) == before
    assert LmEvalTask(task="sst2", num_fewshot=1).fingerprint(sst2) != before
    write_split(GLUE, "sst2", "validation", sentence=["a"], label=[1], idx=[0])
    assert task.fingerprint(sst2) != before


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("task", "shots", "why"),
    [
        ("mrpc", 0, "data set nyu-mll/glue, config mrpc, split validation of lm-eval's task mrpc: not in the mirror"),
        ("sst2", 2, "data set nyu-mll/glue, config sst2, split validation and train of lm-eval's task sst2"),
        ("wikitext", 0, r"HF_HUB_OFFLINE is set\); wikitext2\.lm_eval\.v1 is the same with its pages rebuilt"),
        ("graphwalks_128k", 0, "lm-eval's own code fetches the data, and the hub may not be asked"),
    ],
)
def test_data_that_cannot_be_had_is_one_line(task: str, shots: int, why: str, sst2: Path):
    with pytest.raises(DataError, match=why) as caught:
        LmEvalTask(task=task, num_fewshot=shots).check(sst2)
    assert "\n" not in str(caught.value)


def test_data_of_the_hub_are_read_at_the_commit_that_was_planned(
    reader: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
):
    import datasets

    asked: list[Any] = []

    def load_dataset(path: str, name: str | None, **kwargs: Any) -> Any:
        asked.append((path, name, kwargs))
        rows = datasets.Dataset.from_dict({"sentence": SENTENCES, "label": LABELS})
        return datasets.DatasetDict(train=rows, validation=rows)

    monkeypatch.setattr(hub, "head_commit", lambda repo, mirror: "c0ffee")
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    planned = registry.load("lm_eval:sst2")
    planned.check(None)
    assert planned.fingerprint(None) == f"hub:{GLUE}@c0ffee"
    monkeypatch.setattr(hub, "head_commit", lambda repo, mirror: "moved")
    fields = {"task": "sst2", "num_fewshot": 0, "revisions": {GLUE: "c0ffee"}}
    assert len(LmEvalTask(**fields).measure(reader, tokenizer, None).items["item"]) == 6
    assert asked == [(GLUE, "sst2", {"revision": "c0ffee"})]


def test_the_hub_is_asked_for_its_commit(monkeypatch: pytest.MonkeyPatch):
    from io import BytesIO

    def urlopen(url: str, timeout: float) -> Any:
        assert url.endswith("/api/datasets/owner/asked")
        return BytesIO(b'{"sha": "c0ffee"}')

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "urlopen", urlopen)
    assert hub.head_commit("owner/asked", None) == "c0ffee"


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"sentence": [], "label": []}, "split validation is empty"),
        ({"sentence": ["a", "b"], "label": [1, 2]}, "label 2 of document 1; expected 0 to 1"),
        ({"sentence": ["a", "b"], "label": [0, -1]}, "label -1 of document 1"),
        ({"text": ["a"], "label": [1]}, "lm-eval cannot use it: UndefinedError: 'sentence' is undefined"),
    ],
)
def test_documents_that_are_not_the_tasks_are_refused(
    columns: Any, why: str, reader: Any, tokenizer: Any, write_split: Callable[..., Path]
):
    mirror = write_split(GLUE, "sst2", "validation", **columns)
    with pytest.raises(DataError, match=why):
        registry.load("lm_eval:sst2").measure(reader, tokenizer, mirror)


def test_models_and_tokenizers_that_cannot_be_scored_are_refused(reader: Any, tokenizer: Any, model: Any, sst2: Path):
    task = registry.load("lm_eval:sst2")
    endless = copy.deepcopy(tokenizer)
    endless.eos_token = None
    with pytest.raises(DataError, match="the tokenizer has no EOS token"):
        task.measure(reader, endless, sst2)
    foreign = copy.deepcopy(tokenizer)
    foreign.add_tokens(["Question"])
    with pytest.raises(DataError, match="the tokenizer has 291 entries, the model 290: it is another model's"):
        task.measure(reader, foreign, sst2)
    with torch.no_grad():
        model.transformer.ln_f.weight[0] = math.nan
    with pytest.raises(DataError, match="task sst2: the model's log-likelihood of document 0 is nan"):
        task.measure(model, tokenizer, sst2)


def test_a_package_that_lm_evals_code_needs_is_named(monkeypatch: pytest.MonkeyPatch, sst2: Path):
    import lm_eval.tasks._yaml_loader as loader

    def load_yaml(path: Path) -> Any:
        raise ImportError("Cannot import module 'langdetect'")

    monkeypatch.setattr(loader, "load_yaml", load_yaml)
    task = registry.load("lm_eval:hellaswag")
    monkeypatch.setattr(type(task.sources[0]), "check", lambda self, mirror: None)
    with pytest.raises(DataError, match="lm-eval's code for it does not import: Cannot import module 'langdetect'"):
        task.check(sst2)


@pytest.mark.mirror
@pytest.mark.parametrize(("task", "documents"), [("cola", 1043), ("sst2", 872), ("rte", 277), ("qnli", 5463)])
def test_glues_validation_splits_are_read_from_the_mirror(task: str, documents: int, mirror: Path):
    found = registry.load(f"lm_eval:{task}")
    found.check(mirror)
    assert isinstance(found, LmEvalTask)
    (source,) = found.sources
    data = source.load(mirror)
    assert data is not None
    assert len(data["validation"]) == documents
    assert found.fingerprint(mirror).startswith("sha256:")
    assert found.fields(mirror) == {"task": task, "num_fewshot": None}
