"""Checks of each replaced layer against the dense weight that it stands for."""

from __future__ import annotations

import json
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from methods import student as students
from methods.conformance.bench import Bench, Check, NotApplicable, factorised, logits, relative
from methods.families import architecture, weight_OI
from methods.interface import MethodError
from methods.layers.factorised import Factorised, Spec

LAYER_TOLERANCE = 1e-9
"""Relative difference allowed between a layer and its dense weight, in float64."""
MATERIALISED_TOLERANCE = 1e-4
"""Relative difference allowed between factorised and materialised logits, in float32."""
LENGTHS = (1, 256)
"""Tokens: layers may choose another algorithm for few than for many."""


def layers_equal_dense(bench: Bench) -> Iterator[str]:
    """Forward and backward in float64, one layer of each specification and shape."""
    seen: set[str] = set()
    for sample in bench.samples:
        embedding = architecture(sample.student.config).embedding
        for path, layer in factorised(sample.student):
            spec = dict(sample.plan.surgery[path])
            same = json.dumps([spec, layer.out_features, layer.in_features, path == embedding], sort_keys=True)
            if same not in seen:
                seen.add(same)
                yield from _compare(path, _in_float64(layer, spec), path == embedding)


def _in_float64(layer: Factorised, spec: Spec) -> Factorised:
    built = type(layer).from_spec(spec, layer.out_features, layer.in_features, bias=layer.bias is not None)
    built.load_state_dict(layer.state_dict())
    return built.double()


def _compare(path: str, layer: Factorised, is_embedding: bool) -> Iterator[str]:
    generator = torch.Generator().manual_seed(0)
    ways = [("forward", length) for length in LENGTHS]
    ways += [("logits", length) for length in LENGTHS if is_embedding and hasattr(layer, "logits")]
    for way, length in ways:
        if is_embedding and way == "forward":
            inputs = torch.randint(layer.out_features, (1, length), generator=generator)
        else:
            inputs = torch.randn(1, length, layer.in_features, generator=generator, dtype=torch.float64)
        ours, our_gradients = _gradients(layer, inputs, way, dense=False)
        try:
            theirs, their_gradients = _gradients(layer, inputs, way, dense=True)
        except MethodError as error:
            raise NotApplicable(f"no dense equivalent: {error}") from None
        off = relative(ours, theirs) if ours.shape == theirs.shape else float("inf")
        if not off <= LAYER_TOLERANCE:
            yield f"{path}.{way} of {length} tokens differs by {off:.1e} from materialise() times the input"
        for name, expected in their_gradients.items():
            off = relative(our_gradients[name], expected)
            if not off <= LAYER_TOLERANCE:
                yield f"{path}: the gradient of {name} in {way} of {length} tokens is off by {off:.1e}"


def _gradients(layer: Factorised, inputs: Tensor, way: str, *, dense: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """Output, and the gradients of a fixed random sum of it, through the layer or through its dense weight."""
    named = {name: each.requires_grad_() for name, each in layer.named_parameters()}
    if inputs.is_floating_point():
        named["input"] = inputs = inputs.clone().requires_grad_()
    if dense:
        weight = layer.materialise()
        outputs = F.linear(inputs, weight, layer.bias) if "input" in named else F.embedding(inputs, weight)
    else:
        outputs = layer(inputs) if way == "forward" else layer.logits(inputs)  # type: ignore[operator]
    generator = torch.Generator().manual_seed(1)
    total = (outputs * torch.randn(outputs.shape, generator=generator, dtype=outputs.dtype)).sum()
    found = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    gradients = (torch.zeros_like(each) if g is None else g for each, g in zip(named.values(), found, strict=True))
    return outputs.detach(), dict(zip(named, gradients, strict=True))


def materialised_is_equal(bench: Bench) -> Iterator[str]:
    for sample in bench.samples:
        try:
            dense = students.materialise(sample.student)
        except MethodError as error:
            raise NotApplicable(f"no dense equivalent: {error}") from None
        difference = relative(logits(dense, bench.tokens), logits(sample.student, bench.tokens))
        if not difference <= MATERIALISED_TOLERANCE:
            yield f"{sample.at} materialised logits differ from the factorised ones by {difference:.1e}"


def layers_resemble_teacher(bench: Bench) -> Iterator[str]:
    """||W - W'|| < ||W||: nothing at all would be as near. A transposed or shuffled weight is further away."""
    if not bench.method.keeps_weights:
        raise NotApplicable("declared keeps_weights = False")
    for sample in bench.samples:
        if len(architecture(sample.student.config).blocks) != len(architecture(bench.teacher.config).blocks):
            continue
        for path, layer in factorised(sample.student):
            wanted = weight_OI(bench.teacher.get_submodule(path)).detach()
            try:
                off = relative(layer.materialise().detach(), wanted)
            except MethodError as error:
                raise NotApplicable(f"no dense equivalent: {error}") from None
            if not off < 1:
                yield (
                    f"{path} {sample.at} is off by {off:.2f} of its norm, further than a matrix of zeros:"
                    " is it transposed, permuted or never filled?"
                )


def biases_are_kept(bench: Bench) -> Iterator[str]:
    """Of a block that was moved, the bias is one of those the teacher's blocks have in that place."""
    if not bench.method.keeps_weights:
        raise NotApplicable("declared keeps_weights = False")
    dense = architecture(bench.teacher.config)
    theirs: dict[str, list[Tensor]] = {}
    for each in (each for each in dense.matrices if each.bias):
        name = each.path.removeprefix(dense.blocks[each.block])
        theirs.setdefault(name, []).append(bench.teacher.get_submodule(each.path).get_parameter("bias"))
    for sample in bench.samples:
        ours = architecture(sample.student.config)
        moved = len(ours.blocks) != len(dense.blocks)
        for each in (each for each in ours.matrices if each.bias):
            choices = theirs[each.path.removeprefix(ours.blocks[each.block])]
            bias = getattr(sample.student.get_submodule(each.path), "bias", None)
            if bias is None:
                yield f"{each.path} {sample.at} has no bias, the teacher's has; build the layer with `bias=True`"
            elif not any(torch.equal(bias, b) for b in (choices if moved else choices[each.block : each.block + 1])):
                yield f"{each.path}.bias {sample.at} is not the teacher's"


CHECKS = (
    Check(title="each layer equals its dense weight, forward and backward", run=layers_equal_dense),
    Check(title="factorised forward equals materialised forward", run=materialised_is_equal),
    Check(title="replaced layers resemble the teacher's", run=layers_resemble_teacher),
    Check(title="biases are kept", run=biases_are_kept),
)
