"""A published teacher brought into the store: from a hub id, a directory or a GGUF file, as plain safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness.stage import Context
from harness.teacher_config import gguf_path
from methods import student
from methods.interface import MethodError
from tasks.hub import model_directory


def run(context: Context) -> Mapping[str, Any]:
    """Write `model/`: weights in fp32 and the tokenizer. Nothing in the source is executed or unpickled."""
    source = context.params
    if source.get("gguf"):
        path = gguf_path(source["gguf"])
        model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    else:
        directory = _directory(context)
        model = student.load(directory)
        tokenizer = AutoTokenizer.from_pretrained(directory)
    if len(tokenizer) > model.config.vocab_size:
        raise MethodError(f"the tokenizer has {len(tokenizer)} entries, the model {model.config.vocab_size}")
    student.save(model, context.output / "model", tokenizer)
    return {"params": student.count_params(model)}


def _directory(context: Context) -> Path:
    if context.params.get("directory"):
        return Path(context.params["directory"])
    return model_directory(context.params["model"], context.params["revision"], context.mirror)
