"""Calibration: what the teacher's activations and gradients on training text say about its matrices and blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor, nn

from methods.families import architecture, store_OI
from methods.interface import MethodError, Statistic
from methods.spelling import nearest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Sums = dict[str, Tensor]
"""Module path -> running sum, in float64."""

_BLOCK = 512
"""Tokens whose activations are held in float64 at a time."""


def measure(
    statistic: Statistic,
    model: PreTrainedModel,
    batches: Iterable[Tensor],
    progress: Callable[[int], None] | None = None,
) -> dict[str, Tensor]:
    """One statistic of `model` on `batches` of tokens (B x T, no padding): module path -> value, in float64 on the CPU.

    With x the input of a matrix W (out x in) at one token, N tokens in all, and L the mean negative log-likelihood of
    one sequence:

    - `gram` (in x in): H = sum x x^T over the tokens, what SVD-LLM whitens by (arXiv 2403.07378);
    - `abs_mean` (in): mean |x_j| over the tokens, ASVD's scale before its exponent (arXiv 2312.05821);
    - `fisher_rows` (out): row sums of I = E[(dL/dW)^2], the empirical Fisher information, the expectation over
      sequences (FWSVD, arXiv 2207.00112);
    - `fisher_columns` (in): column means of the same I;
    - `block_influence` (scalar): 1 - E[cos(h, h')], h and h' a block's input and output at one token, the expectation
      over the tokens (ShortGPT, arXiv 2403.03853).

    The first two are keyed by `Matrix.reads`, so that matrices that share an input share the value, the Fisher sums by
    the matrix' own path, the last by the block's. Activations take one forward pass per batch without the output
    matrix; gradients one pass per sequence through the whole model, of which only the sums are kept. Products and sums
    are float64. The model's mode, `requires_grad` and gradients are as before.

    Args:
        progress: called after each batch with the number of sequences done.

    Raises:
        MethodError: the statistic is not known, or there are no batches.
    """
    if statistic not in get_args(Statistic):
        raise MethodError(f"calibration: statistic {statistic!r} is not known{nearest(statistic, get_args(Statistic))}")
    sums: Sums = {}
    sequences = tokens = 0
    observe = _gradients if statistic in ("fisher_rows", "fisher_columns") else _activations
    with _evaluation(model), observe(statistic, model, sums) as run:
        for batch_BT in batches:
            run(batch_BT.to(model.device))
            sequences, tokens = sequences + len(batch_BT), tokens + batch_BT.numel()
            if progress is not None:
                progress(sequences)
    if not tokens:
        raise MethodError("calibration: there are no tokens to measure on")
    if statistic == "block_influence":
        return {path: 1 - total.cpu() / tokens for path, total in sums.items()}
    count = {"gram": 1, "abs_mean": tokens}.get(statistic, sequences)
    return {path: total.cpu() / count for path, total in sums.items()}


@contextmanager
def _evaluation(model: PreTrainedModel) -> Iterator[None]:
    """Without dropout; afterwards each module is in the mode in which it was."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def _activations(statistic: Statistic, model: PreTrainedModel, sums: Sums) -> Iterator[Callable[[Tensor], None]]:
    """A forward pass of the model below its output matrix, with hooks on it that add to `sums`."""
    dense = architecture(model.config)
    base = getattr(model, model.base_model_prefix)

    @torch.no_grad()
    def run(batch_BT: Tensor) -> None:
        base(input_ids=batch_BT, use_cache=False)

    with ExitStack() as hooks:
        if statistic == "block_influence":
            for path in dense.blocks:
                hooks.enter_context(model.get_submodule(path).register_forward_hook(_cosines(sums, path)))
        else:
            value = _gram if statistic == "gram" else _abs_sum
            for path in dict.fromkeys(each.reads for each in dense.matrices):
                hooks.enter_context(model.get_submodule(path).register_forward_pre_hook(_inputs(sums, path, value)))
        yield run


def _inputs(sums: Sums, path: str, value: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, Any], None]:
    def hook(module: nn.Module, inputs: Any) -> None:
        for block_NI in inputs[0].flatten(0, -2).split(_BLOCK):
            _add(sums, path, value(block_NI.double()))

    return hook


def _cosines(sums: Sums, path: str) -> Callable[[nn.Module, Any, Any], None]:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        after_BTD = output[0] if isinstance(output, tuple) else output
        cosine_BT = torch.cosine_similarity(inputs[0].double(), after_BTD.double(), dim=-1)
        _add(sums, path, cosine_BT.sum())

    return hook


def _gram(x_NI: Tensor) -> Tensor:
    """X^T X; on a CPU through numpy, which computes one triangle where torch computes both."""
    if x_NI.device.type == "cpu":
        return torch.from_numpy(x_NI.numpy().T @ x_NI.numpy())
    return x_NI.T @ x_NI


def _abs_sum(x_NI: Tensor) -> Tensor:
    return x_NI.abs().sum(dim=0)


@contextmanager
def _gradients(statistic: Statistic, model: PreTrainedModel, sums: Sums) -> Iterator[Callable[[Tensor], None]]:
    """A forward and backward pass per sequence, in which only the blocks' matrices have gradients."""
    modules = {each.path: model.get_submodule(each.path) for each in architecture(model.config).matrices}
    weights = [module.get_parameter("weight") for module in modules.values()]
    wanted = {parameter: parameter.requires_grad for parameter in model.parameters()}

    @torch.enable_grad()
    def run(batch_BT: Tensor) -> None:
        for tokens_T in batch_BT:
            loss = model(input_ids=tokens_T[None], labels=tokens_T[None], use_cache=False).loss
            gradients = torch.autograd.grad(loss, weights)
            for (path, module), gradient in zip(modules.items(), gradients, strict=True):
                # Transposing, which is what storing does for GPT-2, undoes itself.
                square_OI = store_OI(module, gradient).double().square()
                _add(sums, path, square_OI.sum(dim=1) if statistic == "fisher_rows" else square_OI.mean(dim=0))

    try:
        model.requires_grad_(False)
        for weight in weights:
            weight.requires_grad_(True)
        yield run
    finally:
        for parameter, before in wanted.items():
            parameter.requires_grad_(before)


def _add(sums: Sums, path: str, value: Tensor) -> None:
    if path in sums:
        sums[path] += value
    else:
        sums[path] = value
