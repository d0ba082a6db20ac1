"""Raw DeepSpeed keys that a recipe may hold: those that DeepSpeed reads and that do not contradict the recipe."""

from __future__ import annotations

from harness.errors import SpecError, nearest
from methods.recipe import Optimiser

_PRECISION = "the precision is the recipe's: use precision"
_CUT = "how a worker cuts its share of the batch is a resource: use resources.STAGE.micro_batch"
_BATCH = "the global batch is the recipe's: use batch_tokens (fine-tuning: batch_examples)"

RECIPE_KEYS = {
    "amp": _PRECISION,
    "bf16": _PRECISION,
    "bfloat16": _PRECISION,
    "elasticity": _BATCH,
    "fp16": _PRECISION,
    "gradient_accumulation_steps": _CUT,
    "gradient_clipping": "clipping is the recipe's: use gradient_clipping",
    "optimizer": "the optimiser is the recipe's AdamW: use learning_rate, weight_decay, beta1, beta2, epsilon",
    "scheduler": "the schedule is the recipe's: use schedule, warmup_fraction",
    "torch_autocast": _PRECISION,
    "train_batch_size": _BATCH,
    "train_micro_batch_size_per_gpu": _CUT,
}
"""Raw key -> the keys of the sweep that say the same; a raw one would win without a word."""

KNOWN_KEYS = frozenset(
    {
        "activation_checkpointing", "aio", "autotuning", "checkpoint", "comet", "comms_logger",
        "communication_data_type", "compile", "csv_monitor", "data_efficiency", "data_types",
        "dataloader_drop_last", "datastates_ckpt", "disable_allgather", "disable_python_gc", "dump_state",
        "expert_parallel", "flops_profiler", "gradient_allreduce_op",
        "gradient_predivide_factor", "hybrid_engine", "log_level", "managed_gradient_accumulation",
        "memory_breakdown", "pipeline", "prescale_gradients", "seq_parallel_communication_data_type",
        "sequence_parallel_size", "steps_per_print", "tensor_parallel", "tensorboard", "timers",
        "use_data_before_expert_parallelism", "vocabulary_size",
        "wall_clock_breakdown", "wandb", "weight_quantization", "zero_allow_untested_optimizer",
        "zero_force_ds_cpu_optimizer", "zero_optimization",
    }
)  # fmt: skip
"""What DeepSpeed 0.19 reads at the top of its configuration, besides `RECIPE_KEYS` and what it refuses as removed."""


def check_deepspeed(where: str, recipe: Optimiser) -> None:
    """Raise SpecError on a raw key that the recipe says itself, or that DeepSpeed would ignore."""
    for key in recipe.deepspeed:
        if key in RECIPE_KEYS:
            raise SpecError(f"{where}.deepspeed.{key}: {RECIPE_KEYS[key]}")
        if key not in KNOWN_KEYS:
            raise SpecError(f"{where}.deepspeed.{key}: DeepSpeed has no such key{nearest(key, KNOWN_KEYS)}")
