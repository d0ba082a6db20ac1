"""What every factorised layer knows: its count, its cost, and the dense weight it stands for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from methods.interface import MethodError
from methods.spelling import nearest

Spec = Mapping[str, Any]
"""JSON-able description of a layer, `{"type": kind, ...}`."""

_TOUCH, _BATCHED, _MOVE, _FEW_TOKENS = 16, 56, 64, 16
"""The cost model: measured in float32 on a CPU, where a large product takes 0.01 ns per multiply-add."""

_KINDS: dict[str, type[Factorised]] = {}


class Factorised(nn.Module, ABC):
    """A layer that stands for a dense weight W (out x in) without holding it.

    For a linear layer y = W x + b; for an embedding `out_features` is the vocabulary and y = W[token]. A subclass names
    its `kind`, which is `type` in its specification; the part before a dot is the module under `methods/layers/` or the
    method that defines it. Factors start at zero and are filled from the teacher or from a file.
    """

    kind: ClassVar[str]
    out_features: int
    in_features: int
    bias: nn.Parameter | None

    def __init_subclass__(cls, *, kind: str, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.kind = kind
        _KINDS[kind] = cls

    def __init__(self, out_features: int, in_features: int, *, bias: bool) -> None:
        super().__init__()
        self.out_features = out_features
        self.in_features = in_features
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None

    @classmethod
    @abstractmethod
    def from_spec(cls, spec: Spec, out_features: int, in_features: int, *, bias: bool) -> Self:
        """Build the layer that `spec` describes in the place of a dense one of this shape."""

    @classmethod
    @abstractmethod
    def count(cls, spec: Spec, out_features: int, in_features: int) -> int:
        """Parameters of the factors (the bias not included), by arithmetic."""

    @property
    @abstractmethod
    def macs_per_token(self) -> int:
        """Multiply-adds of one forward pass for one token, the bias not included."""

    @abstractmethod
    def materialise(self) -> Tensor:
        """The dense weight (out x in) that this layer stands for; differentiable.

        Raises:
            MethodError: there is no dense equivalent.
        """

    @property
    def num_params(self) -> int:
        """Parameters of this layer, the bias included."""
        return sum(parameter.numel() for parameter in self.parameters())

    def extra_repr(self) -> str:
        return f"{self.out_features}, {self.in_features}, bias={self.bias is not None}"


def product_cost(rows: int, columns: int, inner: int, *, batched: bool = False) -> int:
    """Cost of a (rows x inner)(inner x columns) product of activations with a weight, in multiply-adds.

    An entry read or written by a product costs `_TOUCH` multiply-adds, more in a batch of small products: this is what
    makes thin products slow.
    """
    return rows * columns * inner + (_BATCHED if batched else _TOUCH) * rows * (columns + inner)


def move_cost(entries: int) -> int:
    """Cost of copying or scaling this many entries, in multiply-adds."""
    return _MOVE * entries


class Costed(Protocol):
    """A way to apply a layer: `rebuilding` once per forward pass and `per_token`, in multiply-adds."""

    @property
    def rebuilding(self) -> int: ...
    @property
    def per_token(self) -> int: ...


AnyWay = TypeVar("AnyWay", bound=Costed)


def frontier(ways: Sequence[AnyWay]) -> tuple[AnyWay, ...]:
    """The ways that no other one beats both in rebuilding and per token; that with the least rebuilding first."""
    kept: list[AnyWay] = []
    for way in sorted(ways, key=lambda way: (way.rebuilding, way.per_token)):
        if not kept or way.per_token < kept[-1].per_token:
            kept.append(way)
    return tuple(kept)


def cheapest(ways: Sequence[AnyWay], tokens: int) -> AnyWay:
    """The way of least cost for this many tokens, of a `frontier`.

    Backward passes cost the same multiple of all, so that the answer is that of the forward pass. Below `_FEW_TOKENS`
    nothing is rebuilt: writing a weight takes longer than reading its factors.
    """
    best = ways[0]
    if tokens >= _FEW_TOKENS:
        for way in ways[1:]:
            if way.rebuilding + tokens * way.per_token < best.rebuilding + tokens * best.per_token:
                best = way
    return best


def layer_class(kind: str) -> type[Factorised]:
    """The class of a layer kind, imported on demand from `methods/layers/` or from the method of that name.

    Raises:
        MethodError: nothing defines this kind.
    """
    if kind not in _KINDS:
        module = kind.partition(".")[0]
        built_in = {path.stem for path in Path(__file__).parent.glob("*.py")} - {"__init__", "factorised"}
        if module in built_in:
            import_module(f"methods.layers.{module}")
        else:
            _import_method(module)
    if kind not in _KINDS:
        raise MethodError(f"layer type {kind!r} is not known{nearest(kind, _KINDS)}")
    return _KINDS[kind]


def _import_method(name: str) -> None:
    from methods import registry

    if name in registry.names():
        registry.load(name)


def count(spec: Spec, out_features: int, in_features: int) -> int:
    """Parameters of the factors that `spec` describes, the bias not included."""
    return layer_class(str(spec["type"])).count(spec, out_features, in_features)
