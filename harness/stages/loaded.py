"""What a reused worker process keeps between fine-tuning stages: base models, frozen teachers, encoded examples.

Cells of several seeds and tasks fine-tune the same models on the same texts. Whatever is kept is named by content that
never changes: an artifact's directory, or a task's data with the tokenizer that encoded it. Nothing that training
changes and nothing that was drawn at random is handed out twice.
"""

from __future__ import annotations

import copy
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from methods import student
from tasks.encoding import Encoded, encode
from tasks.interface import Classification

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Value = TypeVar("Value")

MODEL_BYTES = 2**30
EXAMPLE_BYTES = 2**29
"""Apart from the models: examples take longest to make, and models would drive them out."""
LIMIT_COUNT = 16
TOKEN_BYTES = 36
"""A token id in a list of Python integers: a pointer and an object."""
MODEL_FILES = frozenset({"config.json", "generation_config.json", "model.safetensors.index.json"})


class Kept:
    """Values in the order of their last use; the oldest go when there are too many or they are too large.

    A value larger than the limit is made anew each time, and drives none out.
    """

    def __init__(self, limit_bytes: int, limit_count: int) -> None:
        self.limit_bytes, self.limit_count = limit_bytes, limit_count
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Value], size: Callable[[Value], int]) -> Value:
        """The value kept under `key`; else what `make` gives, kept as `size` bytes."""
        if key in self._values:
            self._values.move_to_end(key)
            value: Value = self._values[key][0]
            return value
        value = make()
        if (bytes_ := size(value)) <= self.limit_bytes:
            self._values[key] = (value, bytes_)
        while self.bytes > self.limit_bytes or len(self._values) > self.limit_count:
            self._values.popitem(last=False)
        return value

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self._values.values())

    def __len__(self) -> int:
        return len(self._values)

    def clear(self) -> None:
        self._values.clear()


kept_models = Kept(MODEL_BYTES, LIMIT_COUNT)
kept_examples = Kept(EXAMPLE_BYTES, LIMIT_COUNT)


def forget() -> None:
    """Keep nothing of what was loaded so far."""
    kept_models.clear()
    kept_examples.clear()


def base_model(directory: Path, num_labels: int, seed: int) -> PreTrainedModel:
    """A copy, to be trained, of the language model in `directory` under a classification head drawn from `seed`."""
    model = copy.deepcopy(_classifier(directory, num_labels))
    torch.manual_seed(seed)
    with torch.no_grad():
        model.score.weight.copy_(student.head_weight(model))
    return model


def teacher_model(directory: Path, num_labels: int, *, shared: bool) -> PreTrainedModel:
    """The fine-tuned classifier in `directory`: the one kept where nothing changes it (`shared`), else a copy."""
    model = _classifier(directory, num_labels)
    return model if shared else copy.deepcopy(model)


def encoded_examples(
    task: Classification,
    split: str,
    tokenizer: PreTrainedTokenizerBase,
    directory: Path,
    *,
    mirror: Path | None,
    limit: int | None,
    max_length: int,
) -> Encoded:
    """A split's examples as token ids; `directory` holds the files of `tokenizer`."""
    data = (type(task).__module__, type(task).__qualname__, task.fingerprint(mirror), mirror, split, limit)
    key = (data, tokenizer_digest(directory), max_length)
    return kept_examples.get(
        key,
        lambda: encode(tokenizer, task.examples(split, mirror, limit), max_length),
        lambda encoded: TOKEN_BYTES * int(encoded.lengths.sum()) + 64 * len(encoded.lengths),
    )


def tokenizer_digest(directory: Path) -> str:
    """sha256 of the files in a model's directory that are neither weights nor the model's configuration.

    Students of one teacher have copies of one tokenizer, and share what it encoded.
    """
    found = hashlib.sha256()
    for path in sorted(directory.iterdir()):
        if path.name not in MODEL_FILES and path.suffix != ".safetensors":
            content = path.read_bytes()
            found.update(f"{path.name} {len(content)}\n".encode() + content)
    return found.hexdigest()


def _classifier(directory: Path, num_labels: int) -> PreTrainedModel:
    return kept_models.get(
        (directory, num_labels),
        lambda: student.load(directory, head="classification", num_labels=num_labels),
        lambda model: sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers())),
    )
