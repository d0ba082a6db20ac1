"""Time of the factorised layers against `nn.Linear` in the same run: `python tests/bench/bench_layers.py`.

Each group is one dense shape at one number of tokens, forward without gradients or forward and backward. Its layers
take turns for a number of rounds; the medians are compared. MACs, parameters and time are fractions of the dense
layer's. Verdicts: `slow` when a layer takes more than 1.05 of the dense layer's time; `above` when, at 64 tokens or
more and at least a quarter of the MACs, it takes more than 1.4 times its fraction of the MACs; else `ok`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import torch
from torch import nn

from methods.kronecker_planning import left_shape
from methods.layers.factorised import Factorised, layer_class
from methods.tensor_train_modes import fast_modes

SHAPES = ((768, 768), (3072, 768), (768, 3072), (2304, 768))
TOKENS = (1, 64, 4096)
KEEPS = (0.25, 0.35, 0.5, 0.65, 0.8)
TRAIN_KEEPS = (0.2, 0.35, 0.5, 0.65)
SLOW, ABOVE, LEAST_MACS = 1.05, 1.4, 0.25

Row = tuple[str, nn.Module, float]
"""Name, layer, multiply-adds per token as a fraction of the dense ones."""


def layer(spec: dict, rows: int, columns: int) -> Factorised:
    made = layer_class(spec["type"]).from_spec(spec, rows, columns, bias=True)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.1)
    return made


def low_rank(rows: int, columns: int) -> Iterator[tuple[str, dict]]:
    for keep in KEEPS:
        yield f"low_rank {keep:g}", {"type": "low_rank", "rank": int(keep * rows * columns / (rows + columns))}


def kronecker(rows: int, columns: int) -> Iterator[tuple[str, dict]]:
    """What `left_shape` chooses, and shapes with B of one row or column; query, key and value are three splits."""
    splits = 3 if rows == 3 * columns else 1
    for terms in (1, 2, 4):
        chosen = {left_shape(rows // splits, columns, step=f, terms=terms, max_macs=0.8) for f in (2, 4, 8, 16)}
        thin = {(rows // splits // f, columns) for f in (2, 4, 8, 16)} if terms == 1 else set()
        for left in sorted((chosen | thin) - {None}, reverse=True):
            m1, n1 = left
            name = f"kronecker {m1}x{n1} x {rows // splits // m1}x{columns // n1}, {terms} terms"
            yield name, {"type": "kronecker", "left": list(left), "splits": splits, "terms": terms}


def permuted(rows: int, columns: int) -> Iterator[tuple[str, dict]]:
    for name, spec in kronecker(rows, columns):
        if spec["terms"] == 1:
            yield f"permuted {name}", {**spec, "type": "permuted_kronecker"}


def tensor_train(rows: int, columns: int) -> Iterator[tuple[str, dict]]:
    for cores in (2, 3):
        for keep in TRAIN_KEEPS:
            train = fast_modes(rows, columns, cores, int(keep * rows * columns))
            if train is not None:
                yield f"tensor_train {cores} cores {keep:g}", {"type": "tensor_train", **train._asdict()}


FAMILIES = {"low_rank": low_rank, "kronecker": kronecker, "permuted": permuted, "tensor_train": tensor_train}


def ours(rows: int, columns: int, families: list[str]) -> Iterator[Row]:
    for family in families:
        for name, spec in FAMILIES[family](rows, columns):
            made = layer(spec, rows, columns)
            yield name, made, made.macs_per_token / (rows * columns)


def theirs(rows: int, columns: int) -> Iterator[Row]:
    """tensorly-torch's layers at half the entries, with its default way to multiply; MACs are not known."""
    import tltorch

    for factorization in ("cp", "tucker", "blocktt"):
        made = tltorch.FactorizedLinear(
            _halves(columns), _halves(rows), bias=True, factorization=factorization, rank=0.5
        )
        for parameter in made.parameters():
            nn.init.normal_(parameter, std=0.1)
        yield f"tensorly-torch {factorization} 0.5", made, float("nan")


def _halves(number: int) -> tuple[int, int]:
    small = next(d for d in range(int(number**0.5), 0, -1) if number % d == 0)
    return small, number // small


def forward(module: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    def once() -> None:
        with torch.no_grad():
            module(x)

    return once


def training(module: nn.Module, x: torch.Tensor, gradient: torch.Tensor) -> Callable[[], None]:
    x = x.clone().requires_grad_(True)

    def once() -> None:
        x.grad = None
        module.zero_grad(set_to_none=True)
        module(x).backward(gradient)

    return once


def medians(calls: list[Callable[[], None]], rounds: int, seconds: float) -> list[float]:
    """Median seconds of one call; the calls take turns, each for about `seconds` a turn."""
    repeats = []
    for call in calls:
        call()
        started = time.perf_counter()
        call()
        repeats.append(max(1, int(seconds / (time.perf_counter() - started))))
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, repeat, measured in zip(calls, repeats, times, strict=True):
            started = time.perf_counter()
            for _ in range(repeat):
                call()
            measured.append((time.perf_counter() - started) / repeat)
    return [sorted(measured)[rounds // 2] for measured in times]


def verdict(tokens: int, macs: float, ratio: float) -> str:
    if ratio > SLOW:
        return "slow"
    return "above" if tokens >= 64 and macs >= LEAST_MACS and ratio > ABOVE * macs else "ok"


def compare(rows: int, columns: int, tokens: int, options: argparse.Namespace) -> None:
    torch.manual_seed(0)
    contenders = list(ours(rows, columns, options.families))
    if find_spec("tltorch"):
        contenders += theirs(rows, columns)
    x, gradient = torch.randn(tokens, columns), torch.randn(tokens, rows)
    modules = [nn.Linear(columns, rows), *(module for _, module, _ in contenders)]
    both = {
        "forward": [forward(module, x) for module in modules],
        "forward and backward": [training(module, x, gradient) for module in modules],
    }
    for mode, calls in both.items():
        dense, *measured = medians(calls, options.rounds, options.seconds)
        print(f"\n{rows} x {columns}, {tokens} tokens, {mode}: nn.Linear {dense * 1e3:.3f} ms")
        for (name, module, macs), seconds in zip(contenders, measured, strict=True):
            params = sum(p.numel() for p in module.parameters()) / (rows * columns + rows)
            ratio = seconds / dense
            words = verdict(tokens, macs, ratio)
            print(f"  {name:42} params {params:.3f}  MACs {macs:.3f}  time {ratio:.3f}  {words}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.02, help="of a layer's turn")
    parser.add_argument("--threads", type=int, default=2, help="no more than there are idle cores")
    parser.add_argument("--tokens", type=int, nargs="*", default=TOKENS)
    parser.add_argument("--shapes", nargs="*", default=["x".join(map(str, shape)) for shape in SHAPES])
    parser.add_argument("--families", nargs="*", default=list(FAMILIES), choices=FAMILIES)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if not find_spec("tltorch"):
        print("tensorly-torch: not installed")
    for shape in options.shapes:
        for tokens in options.tokens:
            rows, columns = map(int, shape.split("x"))
            compare(rows, columns, tokens, options)


if __name__ == "__main__":
    if os.environ.get("THP_MEM_ALLOC_ENABLE") != "1":
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "THP_MEM_ALLOC_ENABLE": "1"})
    main()
