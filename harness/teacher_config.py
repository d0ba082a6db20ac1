"""A teacher's configuration and fingerprint, known before any of its weights are read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import SpecError, nearest
from tasks.hub import MODEL_FILES, check_model, model_directory, model_fingerprint
from tasks.tokenizer import SMALLEST

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from harness.spec import Teacher
    from methods.recipe import Recipe

_FAMILIES = {"gpt2": "GPT2Config", "llama": "LlamaConfig"}


def scratch_config(family: str, fields: Mapping[str, Any]) -> PretrainedConfig:
    """The configuration of a teacher trained from scratch; token 0 begins, ends and pads, and nothing drops out.

    Raises SpecError on a field that the family does not have.
    """
    import transformers

    kind = getattr(transformers, _FAMILIES[family])
    known = set(kind().to_dict())
    for name in fields:
        if name not in known:
            raise SpecError(f"teacher.pretrain.config.{name}: {family} has no such field{nearest(name, known)}")
    if "vocab_size" not in fields:
        raise SpecError("teacher.pretrain.config.vocab_size: needed; it is the tokenizer's size too")
    if fields["vocab_size"] < SMALLEST:
        raise SpecError(f"teacher.pretrain.config.vocab_size: at least {SMALLEST}, one entry a byte and one more")
    config: PretrainedConfig = kind(**(dict(fields) | {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}))
    if config.hidden_size % config.num_attention_heads:
        heads, width = config.num_attention_heads, config.hidden_size
        raise SpecError(f"teacher.pretrain.config: a width of {width} cannot be shared by {heads} heads")
    return config


def teacher_config(teacher: Teacher, mirror: Path | None) -> PretrainedConfig:
    """The configuration of any form of teacher; SpecError when it does not load."""
    if teacher.pretrain:
        return scratch_config(teacher.pretrain.family, teacher.pretrain.config)
    from transformers import AutoConfig

    try:
        if teacher.gguf:
            path = gguf_path(teacher.gguf.model_dump())
            return AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
        if teacher.directory:
            return AutoConfig.from_pretrained(existing_directory(teacher.directory))
        return AutoConfig.from_pretrained(model_directory(str(teacher.model), teacher.revision, mirror, weights=False))
    except SpecError:
        raise
    except (OSError, ValueError, KeyError) as error:
        raise SpecError(f"teacher {teacher.name}: does not load: {str(error).splitlines()[0]}") from error


def existing_directory(name: str) -> Path:
    """A teacher's local directory; SpecError when it holds no model."""
    path = Path(name)
    if not (path / "config.json").is_file():
        raise SpecError(f"teacher.directory: {name} holds no config.json")
    return path


def gguf_path(gguf: Mapping[str, Any]) -> Path:
    """Where the GGUF file lies: inside an installed package, or at its own path."""
    if gguf["package"] is None:
        path = Path(gguf["file"])
    else:
        spec = find_spec(gguf["package"])
        if spec is None or spec.origin is None:
            raise SpecError(f"teacher.gguf.package: {gguf['package']} is not installed; for smollm2: make smollm2")
        path = Path(spec.origin).parent / gguf["file"]
    if not path.is_file():
        raise SpecError(f"teacher.gguf.file: {path} is not there")
    return path


def teacher_fingerprint(teacher: Teacher, mirror: Path | None) -> str:
    """What weights these are: a content hash where they are at hand, else the pinned revision; "" from scratch."""
    if teacher.pretrain:
        return ""
    if teacher.gguf:
        return _files_digest((gguf_path(teacher.gguf.model_dump()),))
    if teacher.directory:
        directory = existing_directory(teacher.directory)
        return _files_digest(tuple(sorted(file for form in MODEL_FILES for file in directory.glob(form))))
    return model_fingerprint(str(teacher.model), teacher.revision, mirror)


def teacher_places(teacher: Teacher) -> Mapping[str, Any]:
    """Where a published teacher is to be had from, paths made absolute; `teacher_fingerprint` says what it is."""
    directory = str(Path(teacher.directory).expanduser().absolute()) if teacher.directory else None
    gguf = teacher.gguf.model_dump() if teacher.gguf else None
    if gguf and gguf["package"] is None:
        gguf["file"] = str(Path(gguf["file"]).expanduser().absolute())
    return {"model": teacher.model, "revision": teacher.revision, "directory": directory, "gguf": gguf}


def check_positions(where: str, recipe: Recipe, config: PretrainedConfig) -> None:
    """Raise SpecError when a recipe's sequences are longer than the model's context."""
    if recipe.sequence_length > config.max_position_embeddings:
        positions = config.max_position_embeddings
        raise SpecError(f"{where}: sequence_length {recipe.sequence_length} is more than the {positions} positions")


def check_teacher(teacher: Teacher, mirror: Path | None) -> None:
    """Raise one line when the teacher's weights cannot be had."""
    if teacher.directory and not any(existing_directory(teacher.directory).glob("*.safetensors")):
        raise SpecError(f"teacher.directory: {teacher.directory} holds no safetensors weights")
    if teacher.model:
        check_model(teacher.model, teacher.revision, mirror)


@cache
def _files_digest(paths: tuple[Path, ...]) -> str:
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            total.update(f"{path.name}:{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return f"sha256:{total.hexdigest()[:32]}"
