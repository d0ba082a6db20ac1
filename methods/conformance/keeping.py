"""Checks of keeping a student: on disk, as a state dict, as a copy, with its tied matrix tied."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from methods import student as students
from methods.conformance.bench import Bench, Check, logits
from methods.layers.tied_head import TiedHead
from methods.student_config import surgery_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def save_and_load_exact(bench: Bench) -> Iterator[str]:
    for sample in bench.samples:
        with TemporaryDirectory() as folder:
            students.save(sample.student, Path(folder))
            loaded = students.load(Path(folder))
            with torch.random.fork_rng(devices=[]):
                classifier = students.load(Path(folder), head="classification", num_labels=2)
        if not torch.equal(logits(loaded, bench.tokens), logits(sample.student, bench.tokens)):
            yield f"{sample.at} the loaded student computes other logits than the saved one; is a tensor not stored?"
        if loaded.config.to_dict() != sample.student.config.to_dict():
            yield f"{sample.at} the loaded student has another configuration"
        if not torch.equal(_hidden(classifier, bench.tokens), _hidden(sample.student, bench.tokens)):
            yield f"{sample.at} the classifier computes other hidden states than the language model"


@torch.no_grad()
def _hidden(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    hidden: Tensor = getattr(model, model.base_model_prefix)(tokens, use_cache=False).last_hidden_state
    return hidden


def state_dict_round_trips(bench: Bench) -> Iterator[str]:
    for sample in bench.samples:
        config = sample.student.config
        empty = students.build(config, surgery_of(config), trained=getattr(config, "trained", None) or ())
        try:
            empty.load_state_dict(sample.student.state_dict(), strict=True)
        except RuntimeError as error:
            yield f"{sample.at} a student built from its configuration refuses its state dict: {_one_line(error)}"
            continue
        if not torch.equal(logits(empty, bench.tokens), logits(sample.student, bench.tokens)):
            yield f"{sample.at} a student filled from the state dict computes other logits; what is kept outside it?"


def copies_are_equal(bench: Bench) -> Iterator[str]:
    for sample in bench.samples:
        copied = deepcopy(sample.student)
        if not torch.equal(logits(copied, bench.tokens), logits(sample.student, bench.tokens)):
            yield f"{sample.at} a deep copy computes other logits"
        if is_tied(copied) != is_tied(sample.student):
            yield f"{sample.at} embedding and output matrix are tied in the student or in its deep copy, not in both"
        ours, theirs = (dict(model.named_parameters()) for model in (sample.student, copied))
        for name in (name for name in ours if name in theirs and ours[name].data_ptr() == theirs[name].data_ptr()):
            yield f"{sample.at} a deep copy shares {name} with the original"


def is_tied(model: PreTrainedModel) -> bool:
    """The output matrix is the token embedding, dense or factorised."""
    embedding, head = model.get_input_embeddings(), model.lm_head
    if isinstance(head, TiedHead):
        return head.emb is embedding
    return getattr(head, "weight", None) is getattr(embedding, "weight", embedding)


def tied_stays_tied(bench: Bench) -> Iterator[str]:
    for sample in bench.samples:
        asked = bool(sample.plan.config_changes.get("tie_word_embeddings", bench.teacher.config.tie_word_embeddings))
        if is_tied(sample.student) != asked:
            words = ("untied", "tied") if asked else ("tied", "untied")
            yield f"{sample.at} embedding and output matrix (lm_head) are {words[0]}, should be {words[1]}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


CHECKS = (
    Check(title="save and load are exact", run=save_and_load_exact),
    Check(title="the state dict round trip is exact", run=state_dict_round_trips),
    Check(title="a deep copy is equal", run=copies_are_equal),
    Check(title="tied embeddings stay tied", run=tied_stays_tied),
)
