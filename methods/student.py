"""Students in memory and on disk: a Hugging Face model of which some layers are factorised.

A student directory holds `config.json` (with the surgery: module path -> layer specification), `model.safetensors` and
the tokenizer. Loading is exact: it refuses missing and unexpected keys, runs no code from the directory and never
unpickles. A dense Hugging Face directory is a student without surgery.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import transformers
from torch import Tensor, nn
from transformers.initialization import no_init_weights

from methods.families import STUDENT_PREFIX, architecture, family, store_OI, weight_OI
from methods.interface import MethodError, Plan
from methods.layers.factorised import Factorised, layer_class
from methods.layers.tied_head import TiedHead
from methods.student_config import dense_config, student_config, surgery_of
from methods.student_weights import read_weights, stored_tensors, write_weights

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

Head = Literal["lm", "classification"]
Factors = Callable[[str, Tensor, Mapping[str, Any]], Mapping[str, Tensor]]
"""(module path, weight out x in, layer specification) -> factor name -> value."""

_CLASSES = {
    ("gpt2", "lm"): "GPT2LMHeadModel",
    ("gpt2", "classification"): "GPT2ForSequenceClassification",
    ("llama", "lm"): "LlamaForCausalLM",
    ("llama", "classification"): "LlamaForSequenceClassification",
}


def build(
    config: PretrainedConfig,
    surgery: Mapping[str, Mapping[str, Any]],
    *,
    changes: Mapping[str, Any] | None = None,
    trained: Sequence[str] = (),
    head: Head = "lm",
) -> PreTrainedModel:
    """A model of `config`'s family with `changes` to its fields and the layers in `surgery` replaced.

    With `trained`, only parameters whose last component it names and a classification head require gradients.

    Its weights are unspecified: this gives shapes, and costs no memory under `torch.device("meta")`. `load` and
    `from_teacher` fill them.
    """
    dense = dense_config(config.to_dict(), changes)
    with no_init_weights():
        model = getattr(transformers, _CLASSES[family(dense.model_type), head])(dense)
    operated = {path: spec for path, spec in surgery.items() if head == "lm" or path != "lm_head"}
    for path, spec in operated.items():
        model.set_submodule(path, _replacement(model, path, spec), strict=True)
    final = student_config(dense, operated, trained)
    final.architectures = [type(model).__name__]
    model.loss_type = "ForCausalLM" if head == "lm" else "ForSequenceClassification"
    for module in model.modules():
        if getattr(module, "config", None) is dense:
            module.config = final
    _tie(model)
    for name, parameter in model.named_parameters() if trained else ():
        parameter.requires_grad = name.startswith("score.") or name.rpartition(".")[2] in trained
    return model.eval()


def _replacement(model: PreTrainedModel, path: str, spec: Mapping[str, Any]) -> Factorised:
    try:
        old = model.get_submodule(path)
    except AttributeError:
        raise MethodError(f"surgery names {path!r}, which {type(model).__name__} does not have") from None
    out_features, in_features = weight_OI(old).shape
    bias = getattr(old, "bias", None) is not None
    return layer_class(str(spec["type"])).from_spec(spec, out_features, in_features, bias=bias)


def _tie(model: PreTrainedModel) -> None:
    """Make the output matrix the token embedding where the configuration says so."""
    if not model.config.tie_word_embeddings or not hasattr(model, "lm_head"):
        return
    embedding = model.get_input_embeddings()
    if isinstance(embedding, Factorised):
        model.lm_head = TiedHead(embedding)
        model._tied_weights_keys = {}
        model.all_tied_weights_keys = {}
    else:
        model.lm_head.weight = embedding.weight


def _cast(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Change the precision of the parameters alone: rotary frequencies stay in float32."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


def from_teacher(
    teacher: PreTrainedModel, plan: Plan, factors: Factors | None = None, source: Callable[[str], str] | None = None
) -> PreTrainedModel:
    """The student that `plan` describes, filled from the teacher, in the teacher's precision.

    Args:
        factors: computes the factors of each replaced layer; biases are copied.
        source: student's module or parameter path -> teacher's; the same path where left out.
    """
    where = source or (lambda path: path)
    student = _cast(
        build(teacher.config, plan.surgery, changes=plan.config_changes, trained=plan.trained), teacher.dtype
    )
    weights = teacher.state_dict()
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            if name.rpartition(".")[0] not in plan.surgery or name.endswith(".bias"):
                parameter.copy_(weights[where(name)])
        for path, spec in plan.surgery.items():
            old, new = teacher.get_submodule(where(path)), student.get_submodule(path)
            if surgery_of(teacher.config).get(where(path)) == json.loads(json.dumps(spec, default=dict)):
                new.load_state_dict(old.state_dict())
                continue
            assert factors is not None, "a plan with surgery needs a function that computes the factors"
            _fill(new, factors(path, dense_OI(old), spec))
    return student


def dense_OI(module: nn.Module) -> Tensor:
    """The weight (out x in) that a layer holds, or stands for when it is factorised already."""
    return (module.materialise() if isinstance(module, Factorised) else weight_OI(module)).detach()


def _fill(layer: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Give a factorised layer its factors and, where it has them, its buffers (index lists, masks)."""
    tensors = {name: each for name, each in layer.state_dict(keep_vars=True).items() if name != "bias"}
    assert tensors.keys() == values.keys(), f"factors are {sorted(tensors)}, got {sorted(values)}"
    for name, tensor in tensors.items():
        tensor.copy_(values[name])


def save(model: PreTrainedModel, directory: Path, tokenizer: PreTrainedTokenizerBase | None = None) -> None:
    """Write the student's directory; a tied matrix is stored once."""
    directory.mkdir(parents=True, exist_ok=True)
    model.config.architectures = [type(model).__name__]
    (directory / "config.json").write_text(model.config.to_json_string(use_diff=False), encoding="utf-8")
    write_weights(model, directory)
    if tokenizer is not None:
        tokenizer.save_pretrained(directory)


def load(
    directory: Path, *, head: Head = "lm", num_labels: int | None = None, dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """Read a student or a dense Hugging Face directory, exactly.

    With `head="classification"` on a language model, the matrix `score` (num_labels x width) is new: normal with the
    configuration's `initializer_range`, drawn from torch's current generator; the language-model head is left out.

    Raises:
        MethodError: no such files, another family, or a key too many or too few.
    """
    fields = _read_config(directory)
    changes = {} if num_labels is None else {"num_labels": num_labels}
    surgery, trained = fields.get("surgery") or {}, fields.get("trained") or ()
    model = _cast(build(dense_config(fields), surgery, changes=changes, trained=trained, head=head), dtype)
    weights = read_weights(directory, model.base_model_prefix)
    fresh = head == "classification" and "score.weight" not in weights
    if head == "lm" and "score.weight" in weights:
        raise MethodError(f"{directory} holds a classifier (it has 'score.weight'), not a language model")
    if fresh:
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith("lm_head.")}
        weights["score.weight"] = head_weight(model)
    _fill_exactly(model, weights, directory)
    return model


def head_weight(model: PreTrainedModel) -> Tensor:
    """A new classification head's matrix (num_labels x width): normal, std `initializer_range`, torch's generator."""
    return torch.empty_like(model.score.weight).normal_(std=model.config.initializer_range)


def _read_config(directory: Path) -> dict[str, Any]:
    try:
        fields: dict[str, Any] = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MethodError(f"{directory} holds no model: config.json is missing") from None
    except json.JSONDecodeError as error:
        raise MethodError(f"{directory / 'config.json'} is not JSON: {error}") from None
    if "model_type" not in fields:
        raise MethodError(f"{directory / 'config.json'} names no model_type")
    family(str(fields["model_type"]))
    if bool(fields.get("surgery")) != str(fields["model_type"]).startswith(STUDENT_PREFIX):
        raise MethodError(f"{directory / 'config.json'}: model_type {fields['model_type']!r} and surgery disagree")
    return fields


def _fill_exactly(model: PreTrainedModel, weights: dict[str, Tensor], directory: Path) -> None:
    expected = stored_tensors(model)
    tied_copy = weights.get("lm_head.weight")
    if "lm_head.weight" not in expected and tied_copy is not None and hasattr(model, "lm_head"):
        embedding = weights.get(f"{architecture(model.config).embedding}.weight")
        if embedding is not None and torch.equal(embedding, tied_copy):
            del weights["lm_head.weight"]
    missing, unexpected = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    for what, names in (("lacks", missing), ("holds unexpected", unexpected)):
        if names:
            raise MethodError(f"{directory} {what} {names[0]!r}{f' and {len(names) - 1} more' if names[1:] else ''}")
    with torch.no_grad():
        for name, parameter in expected.items():
            if parameter.shape != weights[name].shape:
                shapes = f"{list(weights[name].shape)}, expected {list(parameter.shape)}"
                raise MethodError(f"{directory}: {name!r} has shape {shapes}")
            parameter.copy_(weights[name])


def materialise(model: PreTrainedModel) -> PreTrainedModel:
    """The dense equivalent of a student, which plain transformers loads; a new model.

    Raises:
        MethodError: a layer has no dense equivalent.
    """
    head: Head = "lm" if hasattr(model, "lm_head") else "classification"
    dense = _cast(build(dense_config(model.config.to_dict()), {}, head=head), model.dtype)
    weights = dict(model.named_parameters())
    with torch.no_grad():
        for path in surgery_of(model.config):
            layer, target = model.get_submodule(path), dense.get_submodule(path)
            assert isinstance(layer, Factorised), f"{path} is declared factorised but is {type(layer).__name__}"
            weights[f"{path}.weight"] = store_OI(target, layer.materialise())
        for name, parameter in dense.named_parameters():
            parameter.copy_(weights[name])
    return dense


def count_params(model: nn.Module) -> int:
    """Unique parameters, a tied matrix once."""
    return sum(parameter.numel() for parameter in model.parameters())
