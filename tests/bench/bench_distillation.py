"""A distillation step beside what one would write with transformers' Trainer, and TRL's GKD trainer where it is there.

    python tests/bench/bench_distillation.py --vocabulary 50257

Same models, tokens, steps, optimiser and environment; every peer in a process of its own, in turns. Printed: tokens/s
(median step), peak memory of the process, ratios, the largest relative difference of the loss at equal steps, and the
share of the machine's matrix-product peak that the arithmetic of a step reaches.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

LENGTH, ROWS, LAYERS, WIDTH = 256, 8, 4, 256
RATE, TEMPERATURE, CE, KD, HIDDEN = 3e-4, 2.0, 0.5, 0.5, 0.1


def model(vocabulary: int, seed: int) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocabulary, n_embd=WIDTH, n_layer=LAYERS, n_head=4, n_positions=LENGTH + 1, resid_pdrop=0.0,
            embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0, pad_token_id=0,
        )
    )  # fmt: skip


def stream(vocabulary: int) -> Any:
    from harness.engine.batches import TokenBatches

    tokens = np.random.default_rng(0).integers(0, vocabulary, 200_000)
    return TokenBatches(tokens, LENGTH, LENGTH * ROWS, seed=0)


def weighin(vocabulary: int, steps: int, losses: dict[str, Any]) -> tuple[list[float], list[float]]:
    from harness.engine.objective import LanguageModelObjective
    from harness.engine.trainer import train
    from harness.stage import Execution, NoCheckpoints
    from methods.interface import Tap
    from methods.recipe import Losses, Optimisation

    taps = [Tap(teacher=f"transformer.h.{i}", student=f"transformer.h.{i}") for i in range(LAYERS)]
    target = LanguageModelObjective(model(vocabulary, 0), model(vocabulary, 1), Losses(**losses), taps)
    recipe = Optimisation(learning_rate=RATE, schedule="constant", warmup_fraction=0, weight_decay=0)
    clock = Clock()
    result = train(
        target, stream(vocabulary), recipe, steps, execution=Execution(micro_batch=ROWS), checkpoints=NoCheckpoints(),
        progress=lambda **_: clock.tick(),
    )  # fmt: skip
    return [line["loss"] for line in result.curve], clock.steps


class Clock:
    """Seconds between ticks, the first left out."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def tick(self) -> None:
        self.at.append(time.perf_counter())

    @property
    def steps(self) -> list[float]:
        return list(np.diff(self.at))


def ticking(clock: Clock) -> Any:
    """A trainer's callback that tells the clock of every step."""
    from transformers import TrainerCallback

    class Timing(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.tick()

    return Timing()


class InOrder:
    """A trainer that reads its rows as they come."""

    train_dataset: Any

    def _get_train_sampler(self, *_: Any) -> Any:
        from torch.utils.data import SequentialSampler

        return SequentialSampler(self.train_dataset)


def _arguments(cls: Any, steps: int, folder: str, **more: Any) -> Any:
    return cls(
        output_dir=folder, per_device_train_batch_size=ROWS, max_steps=steps, learning_rate=RATE, weight_decay=0.0,
        lr_scheduler_type="constant", max_grad_norm=1.0, save_strategy="no", report_to=[], disable_tqdm=True,
        use_cpu=True, logging_strategy="no", remove_unused_columns=False, bf16=False, **more,
    )  # fmt: skip


def _rows(vocabulary: int, steps: int) -> list[dict[str, torch.Tensor]]:
    """The windows in the order of our stream, for trainers that are told not to shuffle."""
    data, rows = stream(vocabulary), []
    for step in range(steps):
        (batch,) = data.micro_batches(step, rank=0, world=1, micro=ROWS)
        pairs = zip(batch.tensors["input_ids"], batch.tensors["targets"], strict=True)
        rows += [{"input_ids": ids, "targets": targets} for ids, targets in pairs]
    return rows


def trainer(vocabulary: int, steps: int) -> tuple[list[float], list[float]]:
    """`Trainer` with the usual loss: CE, T^2 KL and the mean squared error of every block's output."""
    from transformers import Trainer, TrainingArguments

    curve: list[float] = []
    clock = Clock()

    class Distillation(InOrder, Trainer):
        teacher: Any

        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            targets = inputs.pop("targets").flatten()
            ours = model(**inputs, output_hidden_states=True)
            with torch.no_grad():
                theirs = self.teacher(**inputs, output_hidden_states=True)
            student, teacher = ours.logits.flatten(0, 1), theirs.logits.flatten(0, 1)
            kl = F.kl_div(
                F.log_softmax(student / TEMPERATURE, -1), F.softmax(teacher / TEMPERATURE, -1), reduction="batchmean"
            )
            pairs = zip(ours.hidden_states[1:-1], theirs.hidden_states[1:-1], strict=True)
            hidden = sum(F.mse_loss(s, t) for s, t in pairs) + last_block_mse()
            loss = CE * F.cross_entropy(student, targets) + KD * TEMPERATURE**2 * kl + HIDDEN * hidden
            curve.append(loss.item())
            return loss

    # The last hidden state that transformers reports is behind the final norm; the last block's output is not.
    outputs: dict[str, torch.Tensor] = {}

    def last_block_mse() -> torch.Tensor:
        return F.mse_loss(outputs["student"], outputs["teacher"])

    student, teacher = model(vocabulary, 0), model(vocabulary, 1).eval()
    for name, each in (("student", student), ("teacher", teacher)):
        each.transformer.ln_f.register_forward_pre_hook(lambda _, args, name=name: outputs.__setitem__(name, args[0]))
    with tempfile.TemporaryDirectory() as folder:
        peer = Distillation(
            model=student,
            args=_arguments(TrainingArguments, steps, folder),
            train_dataset=_rows(vocabulary, steps),
            callbacks=[ticking(clock)],
        )
        peer.teacher = teacher
        peer.train()
    return curve, clock.steps


def gkd(vocabulary: int, steps: int) -> tuple[list[float], list[float]]:
    """TRL's GKD trainer off policy: KL(teacher || student) at temperature 1 and nothing else."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from trl.experimental.gkd import GKDConfig, GKDTrainer  # type: ignore[import-not-found]

    curve: list[float] = []
    clock = Clock()

    class Recording(InOrder, GKDTrainer):  # type: ignore[misc]
        def compute_loss(self, *arguments: Any, **options: Any) -> Any:
            loss = super().compute_loss(*arguments, **options)
            curve.append(loss.item())
            return loss

    def collate(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        ids = torch.stack([torch.cat([row["input_ids"], row["targets"][-1:]]) for row in rows])
        labels = ids.clone()
        labels[:, 0] = -100  # predicted by nothing, but counted by the trainer
        return {"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids), "prompts": ids[:, :1]}

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<pad>": 0}, "<pad>")), pad_token="<pad>", eos_token="<pad>"
    )
    with tempfile.TemporaryDirectory() as folder:
        peer = Recording(
            model=model(vocabulary, 0),
            teacher_model=model(vocabulary, 1),
            args=_arguments(GKDConfig, steps, folder, lmbda=0.0, beta=0.0, gradient_checkpointing=False),
            data_collator=collate,
            train_dataset=Dataset.from_list(_rows(vocabulary, steps)).with_format("torch"),
            processing_class=tokenizer,
            callbacks=[ticking(clock)],
        )
        peer.train()
    return curve, clock.steps


USUAL = {"ce": CE, "kd": KD, "temperature": TEMPERATURE, "taps": HIDDEN}
PEERS = {
    "weighin": lambda v, n: weighin(v, n, USUAL),
    "Trainer": trainer,
    "weighin, KL alone": lambda v, n: weighin(v, n, {"ce": 0.0, "kd": 1.0, "temperature": 1.0}),
    "TRL GKD": gkd,
}
PAIRS = (("weighin", "Trainer"), ("weighin, KL alone", "TRL GKD"))


def matrix_peak(seconds: float = 1.5) -> float:
    """FLOP/s of a large fp32 matrix product, the best of as many as fit into `seconds`."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    out, best, started = torch.empty(2048, 2048), 0.0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        before = time.perf_counter()
        torch.mm(a, b, out=out)
        best = max(best, 2 * 2048**3 / (time.perf_counter() - before))
    return best


def alone(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """A peer in a process of its own."""
    command = [sys.executable, __file__, "--peer", name, "--vocabulary", str(arguments.vocabulary)]
    command += ["--steps", str(arguments.steps), "--threads", str(arguments.threads)]
    environment = os.environ | {"TRL_EXPERIMENTAL_SILENCE": "1", "OMP_NUM_THREADS": str(arguments.threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(ours: str, peer: str, arguments: argparse.Namespace) -> None:
    from harness.engine.flops import training_flops_per_token

    runs: dict[str, list[dict[str, Any]]] = {ours: [], peer: []}
    for _ in range(arguments.rounds):
        for name in (ours, peer):
            runs[name].append(alone(name, arguments))
    tokens = LENGTH * ROWS
    rate = {name: tokens / median(s for run in found for s in run["steps"][1:]) for name, found in runs.items()}
    memory = {name: max(run["peak_bytes"] for run in found) for name, found in runs.items()}
    for name in (ours, peer):
        print(f"{name:18} {rate[name]:8.0f} tokens/s  {memory[name] / 2**30:6.2f} GiB")
    curves = zip(runs[ours][0]["curve"], runs[peer][0]["curve"], strict=True)
    apart = max(abs(a - b) / abs(b) for a, b in curves)
    print(f"  ratio            {rate[ours] / rate[peer]:8.2f} x         {memory[ours] / memory[peer]:6.2f} x")
    print(f"  largest relative difference of the loss over {arguments.steps} steps: {apart:.1e}")
    per_token = training_flops_per_token(model(arguments.vocabulary, 0), model(arguments.vocabulary, 1), LENGTH)
    peak = max(run["matrix_peak"] for found in runs.values() for run in found)
    for name in (ours, peer):
        share = per_token * rate[name] / peak
        print(f"  {name}: {share:.0%} of the {peak / 1e9:.0f} GFLOP/s of a matrix product")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--vocabulary", type=int, default=50257)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peer", choices=PEERS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.peer is None:
        huge = os.environ.get("THP_MEM_ALLOC_ENABLE", "0")
        print(f"{LAYERS} layers x {WIDTH}, vocabulary {arguments.vocabulary}, {LENGTH * ROWS} tokens a step,", end=" ")
        print(f"{arguments.threads} threads, THP_MEM_ALLOC_ENABLE={huge}")
        for ours, peer in PAIRS:
            if "TRL" in peer and subprocess.run([sys.executable, "-c", "import trl"], capture_output=True).returncode:
                print("TRL is not installed: left out")
                continue
            compare(ours, peer, arguments)
        return
    warnings.simplefilter("ignore")
    peak = matrix_peak()
    curve, steps = PEERS[arguments.peer](arguments.vocabulary, arguments.steps)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"curve": curve, "steps": steps, "peak_bytes": used, "matrix_peak": peak}))


if __name__ == "__main__":
    main()
