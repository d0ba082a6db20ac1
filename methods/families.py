"""Model families: where GPT-2 and Llama keep their matrices, and how each stores them.

The only place that knows that GPT-2's `Conv1D` holds its weight in x out and Llama's `nn.Linear` out x in.
Importing it needs neither torch nor transformers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from methods.interface import MethodError
from methods.spelling import nearest

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PretrainedConfig

Role = Literal["qkv", "q", "k", "v", "o", "up", "gate", "down"]

STUDENT_PREFIX = "weighin_"
"""Model types of students with replaced layers: `weighin_gpt2` is of the family `gpt2`."""


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """One dense matrix inside a block, y = W x + b with W (out x in)."""

    path: str
    role: Role
    block: int
    out_features: int
    in_features: int
    bias: bool
    reads: str
    """Path of the first matrix of the block that reads the same input: llama's query stands for key and value."""
    splits: int = 1
    """Matrices of equal height that are stacked in it: 3 for GPT-2's fused query, key and value."""

    @property
    def size(self) -> int:
        """Entries of W, without the bias."""
        return self.out_features * self.in_features


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Everything about a dense model that planning needs, by arithmetic on its configuration."""

    family: str
    matrices: tuple[Matrix, ...]
    embedding: str
    """Path of the token embedding, `vocab` x `width`."""
    vocab: int
    width: int
    tied: bool
    """The output matrix is the token embedding."""
    blocks: tuple[str, ...]
    attentions: tuple[str, ...]
    final_norm: str
    num_params: int
    """Unique parameters of the causal LM, a tied matrix once."""

    head: str = "lm_head"


def _gpt2(config: PretrainedConfig) -> Architecture:
    d, inner, vocab = config.n_embd, config.n_inner or 4 * config.n_embd, config.vocab_size
    tied = bool(config.tie_word_embeddings)
    blocks = tuple(f"transformer.h.{i}" for i in range(config.n_layer))

    def matrix(block: int, name: str, role: Role, out_features: int, in_features: int, splits: int = 1) -> Matrix:
        return Matrix(
            path=f"{blocks[block]}.{name}",
            reads=f"{blocks[block]}.{name}",
            role=role,
            block=block,
            out_features=out_features,
            in_features=in_features,
            bias=True,
            splits=splits,
        )

    matrices = tuple(
        each
        for i in range(config.n_layer)
        for each in (
            matrix(i, "attn.c_attn", "qkv", 3 * d, d, 3),
            matrix(i, "attn.c_proj", "o", d, d),
            matrix(i, "mlp.c_fc", "up", inner, d),
            matrix(i, "mlp.c_proj", "down", d, inner),
        )
    )
    norms = 2 * d * (2 * config.n_layer + 1)
    embeddings = vocab * d * (1 if tied else 2) + config.n_positions * d
    return Architecture(
        family="gpt2",
        matrices=matrices,
        embedding="transformer.wte",
        vocab=vocab,
        width=d,
        tied=tied,
        blocks=blocks,
        attentions=tuple(f"{block}.attn" for block in blocks),
        final_norm="transformer.ln_f",
        num_params=embeddings + norms + _entries(matrices),
    )


def _llama(config: PretrainedConfig) -> Architecture:
    d, inner, vocab = config.hidden_size, config.intermediate_size, config.vocab_size
    q_features = config.num_attention_heads * config.head_dim
    kv_features = config.num_key_value_heads * config.head_dim
    tied = bool(config.tie_word_embeddings)
    blocks = tuple(f"model.layers.{i}" for i in range(config.num_hidden_layers))
    shapes: tuple[tuple[str, Role, int, int, bool], ...] = (
        ("self_attn.q_proj", "q", q_features, d, config.attention_bias),
        ("self_attn.k_proj", "k", kv_features, d, config.attention_bias),
        ("self_attn.v_proj", "v", kv_features, d, config.attention_bias),
        ("self_attn.o_proj", "o", d, q_features, config.attention_bias),
        ("mlp.gate_proj", "gate", inner, d, config.mlp_bias),
        ("mlp.up_proj", "up", inner, d, config.mlp_bias),
        ("mlp.down_proj", "down", d, inner, config.mlp_bias),
    )
    first = {"k": "self_attn.q_proj", "v": "self_attn.q_proj", "up": "mlp.gate_proj"}
    matrices = tuple(
        Matrix(
            path=f"{block}.{name}",
            reads=f"{block}.{first.get(role, name)}",
            role=role,
            block=i,
            out_features=rows,
            in_features=columns,
            bias=bool(bias),
        )
        for i, block in enumerate(blocks)
        for name, role, rows, columns, bias in shapes
    )
    norms = d * (2 * len(blocks) + 1)
    return Architecture(
        family="llama",
        matrices=matrices,
        embedding="model.embed_tokens",
        vocab=vocab,
        width=d,
        tied=tied,
        blocks=blocks,
        attentions=tuple(f"{block}.self_attn" for block in blocks),
        final_norm="model.norm",
        num_params=vocab * d * (1 if tied else 2) + norms + _entries(matrices),
    )


def _entries(matrices: tuple[Matrix, ...]) -> int:
    return sum(each.size + (each.out_features if each.bias else 0) for each in matrices)


_FAMILIES = {"gpt2": _gpt2, "llama": _llama}


def family(model_type: str) -> str:
    """`gpt2` or `llama`, also for their students.

    Raises:
        MethodError: the model is of another family.
    """
    name = model_type.removeprefix(STUDENT_PREFIX)
    if name not in _FAMILIES:
        raise MethodError(f"model_type {model_type!r} is not supported{nearest(name, _FAMILIES)}")
    return name


def is_known(model_type: str) -> bool:
    """Whether models of this type, or students of them, are of a family here."""
    return model_type.removeprefix(STUDENT_PREFIX) in _FAMILIES


def architecture(config: PretrainedConfig) -> Architecture:
    """Describe the dense model of a configuration; a student's replaced layers count as dense here.

    Raises:
        MethodError: the model is of another family.
    """
    return _FAMILIES[family(config.model_type)](config)


def weight_OI(module: nn.Module) -> Tensor:
    """The dense weight as out x in (a view), of a `Conv1D`, an `nn.Linear` or an embedding (vocab x width).

    Raises:
        MethodError: the module holds no dense weight; the teacher was compressed already.
    """
    stored = _dense(module)
    return stored.T if type(module).__name__ == "Conv1D" else stored


def store_OI(module: nn.Module, weight: Tensor) -> Tensor:
    """`weight` (out x in) in the orientation that `module` stores: the inverse of `weight_OI`."""
    return weight.T if type(module).__name__ == "Conv1D" else weight


def _dense(module: nn.Module) -> Tensor:
    if type(module).__name__ not in {"Conv1D", "Linear", "Embedding"}:
        raise MethodError(f"{type(module).__name__} is not a dense layer; compress the original model instead")
    weight: Tensor = module.get_parameter("weight")
    return weight
