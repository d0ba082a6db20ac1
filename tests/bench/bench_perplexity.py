"""Window perplexity beside the loop of transformers' documentation and lm-eval's rolling log-likelihood.

    python tests/bench/bench_perplexity.py --mirror DIR

One GPT-2 of random weights (4 layers x 256, vocabulary 50257, context 1024) on the start of WikiText-2 raw test as
GPT-2's tokenizer cuts it, at stride = context and at stride = context/2; every peer in a process of its own, in turns.
Printed: seconds by the clock and of CPU (which other work on the machine hardly moves), the process's peak memory and
how much of it the evaluation added to the loaded model, perplexities, and ratios peer / weighin. lm-eval scores the
first token of each block too; at stride = context/2 it gets windows of its own function with a context of half.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

CONTEXT, LAYERS, WIDTH, VOCABULARY = 1024, 4, 256, 50257
PEERS = ("weighin", "documented loop", "lm-eval")


def model() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=LAYERS, n_head=4, n_positions=CONTEXT)
    ).eval()


def tokenizer(mirror: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(mirror / "models/openai-community/gpt2")


def text_ids(mirror: Path, tokens: int) -> np.ndarray:
    import pyarrow.parquet as pq

    file = next((mirror / "datasets/Salesforce/wikitext/wikitext-2-raw-v1").glob("test-*.parquet"))
    text = "\n\n".join(pq.read_table(file)["text"].to_pylist())
    return np.asarray(tokenizer(mirror)(text, verbose=False)["input_ids"][:tokens])


def weighin(net: Any, ids: list[int], stride: int, mirror: Path) -> tuple[float, int]:
    from tasks.likelihood import score_windows, windows

    spans = list(windows(len(ids), CONTEXT, stride))
    nll = score_windows(net, np.asarray(ids), spans).nll
    return math.fsum(nll), sum(span.scored for span in spans)


def documented_loop(net: Any, ids: list[int], stride: int, mirror: Path) -> tuple[float, int]:
    """As in "Perplexity of fixed-length models", the loss summed over tokens."""
    input_ids = torch.tensor([ids])
    total, count, previous = 0.0, 0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + CONTEXT, len(ids))
        window = input_ids[:, begin:end]
        target = window.clone()
        target[:, : -(end - previous)] = -100
        with torch.no_grad():
            loss = net(window, labels=target).loss
        scored = int((target[:, 1:] != -100).sum())
        total, count, previous = total + float(loss) * scored, count + scored, end
        if end == len(ids):
            break
    return total, count


def lm_eval_rolling(net: Any, ids: list[int], stride: int, mirror: Path) -> tuple[float, int]:
    """The body of `HFLM.loglikelihood_rolling`, with its context of 1 token, or of what the stride leaves."""
    from lm_eval.models.huggingface import HFLM
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    scorer = HFLM(pretrained=net, tokenizer=tokenizer(mirror), batch_size=1, device="cpu", max_length=CONTEXT)
    rolling = get_rolling_token_windows(ids, scorer.prefix_token_id, CONTEXT, CONTEXT - stride + 1)
    requests = [(None, *make_disjoint_window(pair)) for pair in rolling]
    found = [scorer._loglikelihood_tokens([request], disable_tqdm=True, override_bs=1)[0] for request in requests]
    return -sum(value for value, _ in found), len(ids)


MEASURES = {"weighin": weighin, "documented loop": documented_loop, "lm-eval": lm_eval_rolling}


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def measure(peer: str, mirror: Path, stride: int, text: Path) -> dict[str, float]:
    """This process runs one peer: a short text to warm up, then the whole."""
    net, ids = model(), np.load(text, allow_pickle=False).tolist()
    MEASURES[peer](net, ids[:64], 64, mirror)
    loaded, started, used = resident_bytes(), time.perf_counter(), time.process_time()
    total, count = MEASURES[peer](net, ids, stride, mirror)
    seconds, cpu = time.perf_counter() - started, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "seconds": seconds, "cpu_seconds": cpu, "peak_bytes": peak, "added_bytes": peak - loaded,
        "ppl": math.exp(total / count),
    }  # fmt: skip


def alone(peer: str, stride: int, text: Path, arguments: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--peer", peer, "--mirror", str(arguments.mirror)]
    command += ["--stride", str(stride), "--text", str(text), "--threads", str(arguments.threads)]
    environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(stride: int, text: Path, arguments: argparse.Namespace) -> None:
    runs: dict[str, list[dict[str, float]]] = {peer: [] for peer in PEERS}
    for _ in range(arguments.rounds):
        for peer in PEERS:
            runs[peer].append(alone(peer, stride, text, arguments))
    middle = {peer: {key: median(run[key] for run in found) for key in found[0]} for peer, found in runs.items()}
    ours = middle["weighin"]
    print(f"stride = {stride}, context = {CONTEXT}, {arguments.tokens} tokens, median of {arguments.rounds}")
    for peer, found in middle.items():
        ratio = {key: found[key] / ours[key] for key in ours}
        print(
            f"  {peer:16} {found['seconds']:7.1f} s ({ratio['seconds']:.2f} x)  {found['cpu_seconds']:7.1f} CPU s "
            f"({ratio['cpu_seconds']:.2f} x)  {found['peak_bytes'] / 2**20:6.0f} MiB ({ratio['peak_bytes']:.2f} x), "
            f"added {found['added_bytes'] / 2**20:5.0f} MiB ({ratio['added_bytes']:.1f} x)  ppl {found['ppl']:.3f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--mirror", type=Path, default=os.environ.get("WEIGHIN_MIRROR"), required=False)
    parser.add_argument("--tokens", type=int, default=32 * CONTEXT)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--stride", type=int)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--peer", choices=PEERS)
    arguments = parser.parse_args()
    assert arguments.mirror, "--mirror or WEIGHIN_MIRROR: a copy of WikiText-2 and of GPT-2's tokenizer"
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")
    if arguments.peer:
        print(json.dumps(measure(arguments.peer, Path(arguments.mirror), arguments.stride, arguments.text)))
        return
    huge = os.environ.get("THP_MEM_ALLOC_ENABLE", "0")
    print(f"GPT-2, {LAYERS} layers x {WIDTH}, {arguments.threads} threads, THP_MEM_ALLOC_ENABLE={huge}")
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "ids.npy"
        np.save(text, text_ids(Path(arguments.mirror), arguments.tokens), allow_pickle=False)
        for stride in (CONTEXT, CONTEXT // 2):
            compare(stride, text, arguments)


if __name__ == "__main__":
    main()
