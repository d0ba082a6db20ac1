"""Configurations of students: the teacher's family's, plus the surgery that replaced some of its layers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import GPT2Config, LlamaConfig, PretrainedConfig

from methods.families import STUDENT_PREFIX, family
from methods.interface import MethodError


class StudentGPT2Config(GPT2Config):  # type: ignore[misc]
    """GPT-2 with `surgery`: module path -> layer specification. Plain transformers does not know this type.

    `trained` names the parameters that train, by their last component; None when all do.
    """

    model_type = f"{STUDENT_PREFIX}gpt2"
    surgery: dict[str, Any] | None = None
    trained: list[str] | None = None


class StudentLlamaConfig(LlamaConfig):  # type: ignore[misc]
    """Llama with `surgery` and `trained`, as for GPT-2."""

    model_type = f"{STUDENT_PREFIX}llama"
    surgery: dict[str, Any] | None = None
    trained: list[str] | None = None


_DENSE = {"gpt2": GPT2Config, "llama": LlamaConfig}
_STUDENT = {"gpt2": StudentGPT2Config, "llama": StudentLlamaConfig}


def surgery_of(config: PretrainedConfig) -> dict[str, Any]:
    """Module path -> layer specification; empty for a dense model."""
    return dict(getattr(config, "surgery", None) or {})


def dense_config(fields: Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> PretrainedConfig:
    """The family's own configuration from the fields of a dense or a student one.

    Special tokens outside the vocabulary become None.
    """
    kept = {name: value for name, value in fields.items() if name not in {"model_type", "surgery", "trained"}}
    built = _DENSE[family(str(fields["model_type"]))](**_within_vocabulary(kept))
    for name, value in (changes or {}).items():
        setattr(built, name, value)
    return built


def student_config(dense: Any, surgery: Mapping[str, Any], trained: Sequence[str]) -> PretrainedConfig:
    """`dense` with surgery and what trains declared; `dense` itself when there is no surgery.

    Raises:
        MethodError: a student without surgery cannot declare what trains.
    """
    if not surgery:
        if trained:
            raise MethodError("a plan without surgery trains everything: `trained` needs replaced layers")
        return dense
    fields = {name: value for name, value in dense.to_dict().items() if name != "model_type"}
    declared = {"surgery": json.loads(json.dumps(surgery, default=dict)), "trained": list(trained) or None}
    built: Any = _STUDENT[family(dense.model_type)](**fields, **declared)
    built._attn_implementation = dense._attn_implementation
    return built


def _within_vocabulary(fields: dict[str, Any]) -> dict[str, Any]:
    vocab = fields.get("vocab_size")
    special = ("bos_token_id", "eos_token_id", "pad_token_id")
    if vocab is None:
        return fields
    outside = {n: None for n in special if isinstance(fields.get(n), int) and not 0 <= fields[n] < vocab}
    return fields | outside
