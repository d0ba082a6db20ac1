"""A causal language model from wherever a name points: a directory, a student's directory, the mirror, the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import SpecError
from methods.interface import MethodError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_model(name: str, revision: str | None, mirror: Path | None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A student's or a Hugging Face directory, or a model of the hub, on the GPU where there is one; its tokenizer.

    Raises:
        SpecError: it does not load.
        DataError: neither a directory nor a model that can be had.
    """
    import torch
    import transformers

    from tasks.hub import model_directory

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    path = Path(name).expanduser()
    if path.exists():
        directory = path
    elif name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise SpecError(f"{name}: no such directory")
    else:
        directory = model_directory(name, revision, mirror)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
        model = _model(directory)
    except MethodError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SpecError(f"{name}: does not load: {str(error).strip().splitlines()[0]}") from error
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer


def _model(directory: Path) -> PreTrainedModel:
    """By our own loader where it knows the family, else by transformers' with nothing made up and nothing executed."""
    import torch
    from transformers import AutoModelForCausalLM

    from methods import student
    from methods.families import is_known

    config = directory / "config.json"
    kind = json.loads(config.read_text(encoding="utf-8")).get("model_type", "") if config.is_file() else ""
    if not kind or is_known(kind):
        return student.load(directory)
    loaded = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, use_safetensors=True, output_loading_info=True
    )
    model: PreTrainedModel = loaded[0]
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if names := sorted(map(str, loaded[1].get(what, ()))):
            raise MethodError(f"{directory}: {what.replace('_', ' ')}: {', '.join(names[:3])}")
    return model
