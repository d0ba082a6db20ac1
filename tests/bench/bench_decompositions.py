"""Speed, accuracy and memory of the decompositions over the 49 matrices of GPT-2 small, against other libraries'.

`python tests/bench/bench_decompositions.py [--layers 12] [--rounds 5] [--threads 1]`

The matrices are random with singular values 1 / (1 + i / 32). Every method sees every matrix once per round, in turn.
Printed are the median over the rounds of the seconds for all matrices, how many times as long as ours that is, the
largest excess of the error over the optimum (relative, float64; for the TT-matrix over TT-SVD by full SVDs in float64),
and the peak memory above the matrix for the largest one, each method in its own process.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from math import isqrt

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from methods.nearest_kronecker import nearest_kronecker
from methods.truncated_svd import truncated_svd
from methods.tt_svd import tt_svd

SHAPES = [(2304, 768), (768, 768), (3072, 768), (768, 3072)]
"""A block's matrices, out x in."""
EMBEDDING = (50257, 768)
MODES = {768: (8, 8, 12), 2304: (12, 12, 16), 3072: (12, 16, 16)}
KEEP = 0.5

Pair = tuple[Tensor, Tensor]
Method = Callable[[Tensor], Pair | list[Tensor]]


def decaying(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    side = min(rows, columns)
    left, right = (torch.linalg.qr(torch.randn(n, side, generator=generator))[0] for n in (rows, columns))
    return (left / (1 + torch.arange(side) / 32)) @ right.T


def matrices(layers: int, embedding: bool) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(0)
    for shape in SHAPES * layers + ([EMBEDDING] if embedding else []):
        yield decaying(*shape, generator)


class LowRank:
    """The best approximation of the matrix by a rank."""

    title = "truncated SVD, half the parameters"
    embedding = True

    def matrix(self, weight: Tensor) -> Tensor:
        """The matrix whose rank is reduced."""
        return weight

    def rank(self, weight: Tensor) -> int:
        return int(KEEP * weight.numel() / sum(weight.shape))

    def ours(self, weight: Tensor) -> Pair:
        return truncated_svd(weight, self.rank(weight))

    def methods(self) -> dict[str, Method]:
        return {
            "weighin": self.ours,
            "torch.linalg.svd": self.full,
            "torch.linalg.svd in float64": lambda weight: self.full(weight.double()),
            "torch.svd_lowrank(niter=10)": self.randomised,
            "tensorly svd_interface": self.tensorly,
        }

    def full(self, weight: Tensor) -> Pair:
        rank = self.rank(weight)
        u, s, vh = torch.linalg.svd(self.matrix(weight), full_matrices=False)
        return u[:, :rank] * s[:rank], vh[:rank]

    def randomised(self, weight: Tensor) -> Pair:
        rank, matrix = self.rank(weight), self.matrix(weight)
        torch.manual_seed(0)
        u, s, v = torch.svd_lowrank(matrix, q=min(rank + 5, *matrix.shape), niter=10)
        return u[:, :rank] * s[:rank], v[:, :rank].T

    def tensorly(self, weight: Tensor) -> Pair:
        import tensorly
        from tensorly.tenalg.svd import svd_interface

        with tensorly.backend_context("numpy", local_threadsafe=True):
            u, s, vh = svd_interface(self.matrix(weight).numpy(), n_eigenvecs=self.rank(weight), method="truncated_svd")
        return torch.from_numpy(u * s), torch.from_numpy(vh.copy())

    def error(self, weight: Tensor, result: Pair) -> float:
        left, right = (each.double() for each in result)
        residual = self.matrix(weight).double().addmm_(left, right, alpha=-1.0)
        return float(np.linalg.norm(residual.numpy()))

    def optimum(self, weight: Tensor) -> float:
        """From all eigenvalues of the Gram matrix of the short side, in float64."""
        matrix = self.matrix(weight).double().numpy()
        wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
        squares = np.linalg.eigvalsh(wide @ wide.T)
        return float(np.sqrt(squares[: len(squares) - self.rank(weight)].sum()))


class Kronecker(LowRank):
    """One Kronecker product: the rearranged matrix is approximated by rank 1; the rearranging is timed too."""

    def __init__(self, title: str, left: Callable[[int, int], tuple[int, int]]) -> None:
        self.title, self.left = title, left

    def matrix(self, weight: Tensor) -> Tensor:
        m1, n1 = self.left(*weight.shape)
        m2, n2 = weight.shape[0] // m1, weight.shape[1] // n1
        return weight.reshape(m1, m2, n1, n2).permute(0, 2, 1, 3).reshape(m1 * n1, m2 * n2)

    def rank(self, weight: Tensor) -> int:
        return 1

    def ours(self, weight: Tensor) -> Pair:
        left, right = nearest_kronecker(weight, *self.left(*weight.shape))
        return left.reshape(-1, 1), right.reshape(1, -1)


class TensorTrain(LowRank):
    """Three cores of one rank, as many parameters as `KEEP` says; the embedding's 50257 has no even modes."""

    title = "TT-matrix, three cores, half the parameters"
    embedding = False

    def shape(self, weight: Tensor) -> tuple[tuple[int, ...], tuple[int, ...], list[int]]:
        out_modes, in_modes = (MODES[size] for size in weight.shape)
        first, middle, last = (m * n for m, n in zip(out_modes, in_modes, strict=True))
        fitting = [
            [1, min(rank, first), min(rank, last), 1]
            for rank in range(1, max(first, last) + 1)
            if first * min(rank, first) + min(rank, first) * middle * min(rank, last) + min(rank, last) * last
            <= KEEP * weight.numel()
        ]
        return out_modes, in_modes, fitting[-1]

    def methods(self) -> dict[str, Method]:
        return {
            "weighin": lambda weight: tt_svd(weight, *self.shape(weight)),
            "tensorly tensor_train": lambda weight: self.through_tensorly(weight, "truncated_svd"),
            "tensorly, randomized_svd": lambda weight: self.through_tensorly(weight, "randomized_svd"),
            "tensorly-torch BlockTT": self.through_tensorly_torch,
        }

    def through_tensorly(self, weight: Tensor, svd: str) -> list[Tensor]:
        import tensorly
        from tensorly.decomposition import tensor_train

        out_modes, in_modes, ranks = self.shape(weight)
        axes = [axis for k in range(3) for axis in (k, 3 + k)]
        folded = weight.double().reshape(*out_modes, *in_modes).permute(axes)
        folded = folded.reshape([m * n for m, n in zip(out_modes, in_modes, strict=True)])
        options = {"random_state": 0} if svd == "randomized_svd" else {}
        with tensorly.backend_context("numpy", local_threadsafe=True):
            factors = tensor_train(folded.numpy(), ranks, svd=svd, **options).factors
        shapes = zip(ranks[:-1], out_modes, in_modes, ranks[1:], strict=True)
        return [torch.from_numpy(each.copy()).reshape(shape) for each, shape in zip(factors, shapes, strict=True)]

    def through_tensorly_torch(self, weight: Tensor) -> list[Tensor]:
        import tensorly
        from tltorch.factorized_tensors import BlockTT

        out_modes, in_modes, ranks = self.shape(weight)
        with tensorly.backend_context("pytorch", local_threadsafe=True):
            found = BlockTT.from_tensor(weight.reshape(*out_modes, *in_modes), (out_modes, in_modes), rank=tuple(ranks))
        return [each.detach() for each in found.factors]

    def error(self, weight: Tensor, result: list[Tensor]) -> float:
        dense = result[0].double()[0]
        for core in result[1:]:
            dense = torch.tensordot(dense, core.double(), dims=1).transpose(1, 2).flatten(2, 3).flatten(0, 1)
        return float(np.linalg.norm((dense[..., 0] - weight.double()).numpy()))

    def optimum(self, weight: Tensor) -> float:
        return self.error(weight, self.through_tensorly(weight, "truncated_svd"))


def factor_2(rows: int, columns: int) -> tuple[int, int]:
    """B has two entries, along the longer side if it is even."""
    return (rows // 2, columns) if rows > columns and rows % 2 == 0 else (rows, columns // 2)


def balanced(rows: int, columns: int) -> tuple[int, int]:
    """A's rows are the smallest divisor from the root of the rows on, its columns the largest up to the root."""
    m1 = next(d for d in range(isqrt(rows - 1) + 1, rows + 1) if rows % d == 0)
    return m1, next(d for d in range(isqrt(columns), 0, -1) if columns % d == 0)


CASES = {
    "factor2": Kronecker("Kronecker, one term, B of two entries", factor_2),
    "balanced": Kronecker("Kronecker, one term, balanced factors", balanced),
    "svd": LowRank(),
    "tt": TensorTrain(),
}


def installed(name: str) -> bool:
    package = {"tensorly-torch BlockTT": "tltorch"}.get(name, "tensorly" if "tensorly" in name else "torch")
    return importlib.util.find_spec(package) is not None


def run(case: LowRank, layers: int, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds and largest excess error by method."""
    weights = list(matrices(layers, case.embedding))
    methods = {name: method for name, method in case.methods().items() if installed(name)}
    seconds = {name: np.zeros(rounds) for name in methods}
    excess = dict.fromkeys(methods, -np.inf)
    for turn in range(rounds):
        for weight in weights:
            best = case.optimum(weight) if turn == 0 else 0.0
            for name, method in methods.items():
                started = time.perf_counter()
                result = method(weight)
                seconds[name][turn] += time.perf_counter() - started
                if turn == 0:
                    excess[name] = max(excess[name], case.error(weight, result) / best - 1)
    return {name: float(np.median(each)) for name, each in seconds.items()}, excess


def measure_memory(key: str, name: str) -> int:
    """Peak bytes above the largest matrix, to be called in a fresh process."""
    case = CASES[key]
    method = case.methods()[name]
    method(torch.randn(768, 768))
    weight = torch.randn(EMBEDDING if case.embedding else SHAPES[-1])
    before = resident("VmRSS")
    method(weight)
    return max(0, resident("VmHWM") - before)


def resident(field: str) -> int:
    """Bytes from /proc; ru_maxrss would count the parent's memory before the child's program was loaded."""
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(field))


def report(key: str, arguments: argparse.Namespace) -> None:
    case = CASES[key]
    seconds, excess = run(case, arguments.layers, arguments.rounds)
    print(f"\n{case.title}\n{'':30}{'median s':>10}{'x ours':>8}{'excess':>10}{'peak MB':>9}")
    for name in case.methods():
        if name not in seconds:
            print(f"{name:30}{'not installed':>18}")
            continue
        child = [sys.executable, __file__, "--memory", key, name, "--threads", str(arguments.threads)]
        peak = int(subprocess.run(child, check=True, capture_output=True, text=True).stdout) / 1e6
        ratio = seconds[name] / seconds["weighin"]
        print(f"{name:30}{seconds[name]:10.3f}{ratio:8.1f}{excess[name]:10.0e}{peak:9.0f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=12, help="blocks of four matrices, besides the embedding")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=CASES, nargs="+", default=list(CASES))
    parser.add_argument("--memory", nargs=2, metavar=("CASE", "METHOD"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with threadpool_limits(given.threads):
        if given.memory:
            print(measure_memory(*given.memory))
        else:
            for each in given.only:
                report(each, given)
