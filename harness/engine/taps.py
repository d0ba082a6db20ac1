"""Intermediate-layer distillation: record the tensors that taps name, and compare teacher with student.

Attention maps are not recorded: queries and keys are, by the attention function of `harness.engine.attention`.
Shape suffixes: B batch, T positions, H query heads, G key heads, D width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from harness.engine.attention import attending
from harness.engine.losses import BY_NAME, at_least_fp32, attention_kl, mean_over_positions
from harness.stage import StageFailure
from methods.interface import Tap

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class QueryKey(NamedTuple):
    """What an attention map is computed from: softmax(query key^T scale) where `visible`."""

    query_BHTD: Tensor
    key_BHTD: Tensor
    scale: float
    visible: Tensor | None
    """Boolean, broadcastable to (B, H, T, T); None means causal."""


@dataclass
class Recording:
    """Tensors of one forward pass by module path."""

    outputs: dict[str, Tensor] = field(default_factory=dict)
    attention: dict[str, QueryKey] = field(default_factory=dict)


@contextmanager
def recording(model: PreTrainedModel, taps: Sequence[Tap], side: str) -> Iterator[Recording]:
    """Record what `taps` name on one `side` ("teacher" or "student") of forward passes inside the block."""
    seen = Recording()
    with ExitStack() as stack:
        for tap in taps:
            path: str = getattr(tap, side)
            module = submodule(model, path, side)
            if tap.kind == "output":
                stack.enter_context(module.register_forward_hook(_output_hook(seen, path)))
            else:
                stack.callback(module.__dict__.pop, "_weighin_record", None)
                module._weighin_record = _recorder(seen, path)
        if any(tap.kind == "attention" for tap in taps):
            stack.enter_context(attending(model))
        yield seen


def submodule(model: nn.Module, path: str, side: str) -> nn.Module:
    """The module at `path`, or a `StageFailure` that names the path and what is there."""
    here = model
    for depth, name in enumerate(path.split(".")):
        children = dict(here.named_children())
        if name not in children:
            parent = ".".join(path.split(".")[:depth]) or "the model"
            known = ", ".join(children) or "nothing"
            raise StageFailure(f"tap: the {side} has no module {path!r}; {parent} has: {known}")
        here = children[name]
    return here


def projections(taps: Sequence[Tap], student: Recording, teacher: Recording) -> nn.ModuleDict:
    """Number of a tap with `project` -> its linear map from the student's width to the teacher's, without bias.

    Each is drawn from a stream of its own, N(0, 1 / student width), whatever else is random in a training.
    """
    maps = nn.ModuleDict()
    for number, tap in enumerate(taps):
        if tap.project:
            ours = student.outputs[tap.student]
            width_out, width_in = teacher.outputs[tap.teacher].shape[-1], ours.shape[-1]
            drawn = torch.randn(width_out, width_in, generator=torch.Generator().manual_seed(number))
            projection = nn.Linear(width_in, width_out, bias=False)
            projection.weight = nn.Parameter((drawn / width_in**0.5).to(ours.device, ours.dtype))
            maps[str(number)] = projection
    return maps


def tap_loss(
    tap: Tap, student: Recording, teacher: Recording, mask_BT: Tensor | None, projection: nn.Module | None = None
) -> Tensor:
    """One tap's loss: mean over the real positions of each example, then over examples (and heads).

    An `output` tap compares position by position: mse, 1 - cosine, or KL of softmaxes over features; the student's
    output goes through `projection` first, where there is one. An `attention` tap is KL(teacher map || student map),
    mean over heads and query rows (KnGPT2's L_att).
    """
    if tap.kind == "output":
        theirs = teacher.outputs[tap.teacher]
        ours = student.outputs[tap.student]
        if projection is not None:
            ours = projection(ours)
        return mean_over_positions(BY_NAME[tap.loss](at_least_fp32(ours), at_least_fp32(theirs)), mask_BT)
    ours_qk, theirs_qk = student.attention[tap.student], teacher.attention[tap.teacher]
    batch, _, length, _ = ours_qk.query_BHTD.shape
    weights_BT = torch.ones(batch, length, device=ours_qk.query_BHTD.device) if mask_BT is None else mask_BT.float()
    weights_BT = weights_BT / weights_BT.sum(1, keepdim=True) / batch
    return attention_kl(
        ours_qk.query_BHTD, ours_qk.key_BHTD, theirs_qk.query_BHTD, theirs_qk.key_BHTD,
        student_scale=ours_qk.scale, teacher_scale=theirs_qk.scale, visible=ours_qk.visible, row_weights_BT=weights_BT,
    )  # fmt: skip


def check_taps(taps: Sequence[Tap], student: Recording, teacher: Recording) -> None:
    """Raise `StageFailure` when a tap's two tensors cannot be compared; recordings are of a forward pass of both."""
    for tap in taps:
        if tap.kind == "attention" and tap.loss != "kl":
            raise StageFailure(f"tap {_name(tap)}: attention maps are compared by kl, not {tap.loss}")
        if tap.kind == "attention" and tap.project:
            raise StageFailure(f"tap {_name(tap)}: attention maps have no width to project")
        theirs, ours = _shape(tap, teacher, tap.teacher), _shape(tap, student, tap.student)
        if theirs != ours and not tap.project:
            what = "widths" if tap.kind == "output" else "numbers of heads"
            raise StageFailure(f"tap {_name(tap)}: {what} differ: teacher {theirs}, student {ours}")


def _shape(tap: Tap, seen: Recording, path: str) -> int:
    if tap.kind == "attention":
        if path not in seen.attention:
            raise StageFailure(f"tap {_name(tap)}: {path!r} is not an attention module of transformers' interface")
        return seen.attention[path].query_BHTD.shape[1]
    if path not in seen.outputs:
        raise StageFailure(f"tap {_name(tap)}: {path!r} was not called, or returns no tensor")
    return seen.outputs[path].shape[-1]


def _name(tap: Tap) -> str:
    return f"{tap.teacher} -> {tap.student} ({tap.kind})"


def _output_hook(seen: Recording, path: str) -> Any:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple | list) else output
        if isinstance(first, Tensor):
            seen.outputs[path] = first

    return hook


def _recorder(seen: Recording, path: str) -> Any:
    def record(query_BHTD: Tensor, key_BGTD: Tensor, scaling: float | None, mask: Tensor | None) -> None:
        groups = query_BHTD.shape[1] // key_BGTD.shape[1]
        key_BHTD = key_BGTD.repeat_interleave(groups, 1) if groups > 1 else key_BGTD
        scale = query_BHTD.shape[-1] ** -0.5 if scaling is None else scaling
        visible = mask if mask is None or mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
        seen.attention[path] = QueryKey(query_BHTD, key_BHTD, scale, visible)

    return record
