"""DeepSpeed behind one class: the only file that imports it.

ZeRO stages 0-3, fp32 and bf16, one process or many differ by configuration alone. Whoever uses `Engine` sees full
fp32 tensors by parameter name, whatever is partitioned where.
"""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from harness.engine.batches import MicroBatch
from harness.engine.dropout import dropouts, key_rows
from harness.engine.objective import Objective
from harness.engine.process_group import device_of, join_process_group
from harness.stage import Execution, Ranks
from methods.recipe import Optimisation

MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's two moments, by torch's names."""
UNCLIPPED = 1e30
"""A gradient norm that none reaches: DeepSpeed measures the norm only where it may have to clip, and not at stage 0."""


def _deepspeed(device: torch.device, ranks: Ranks) -> Any:
    """DeepSpeed, imported quietly, told which of its machine's workers this is and to compile nothing."""
    os.environ["LOCAL_RANK"] = str(ranks.local_rank)
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import deepspeed

    # A shared-memory all-reduce for inference, which would be compiled when a process group is made.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    return deepspeed


def decay_groups(parameters: Sequence[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """AdamW's groups: matrices and higher orders decay, biases and norms do not."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def configuration(
    optimisation: Optimisation, execution: Execution, *, rows: int, micro: int, accumulation: int
) -> dict[str, Any]:
    """DeepSpeed's configuration of a stage; raw keys win, those of the recipe and those that say where and how.

    bf16 needs fp32 masters, which stage 0 keeps in another optimizer with other rounding: it runs as stage 1, so that
    the stage never changes a result.
    """
    bf16 = optimisation.precision == "bf16"
    zero: dict[str, Any] = {"stage": max(execution.zero_stage, 1 if bf16 else 0)}
    if execution.offload and zero["stage"]:
        zero["offload_optimizer"] = {"device": "cpu"}
    config: dict[str, Any] = {
        "train_batch_size": rows,
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": (optimisation.gradient_clipping or UNCLIPPED) if zero["stage"] else 0.0,
        "zero_optimization": zero,
        "bf16": {"enabled": bf16},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": None,
    }
    return _merged(_merged(config, optimisation.deepspeed), execution.deepspeed)


def _merged(config: Mapping[str, Any], raw: Mapping[str, Any]) -> dict[str, Any]:
    nested = {
        key: _merged(config[key], value)
        for key, value in raw.items()
        if isinstance(value, dict) and isinstance(config.get(key), dict)
    }
    return {**config, **raw, **nested}


class Engine:
    """An objective, its AdamW and DeepSpeed around them. Every method is collective: all workers call it.

    `close` gives the objective back as it came: fp32, unpartitioned, without hooks, holding the trained weights. Its
    `Parameter` objects are new ones, since DeepSpeed leaves its own marks on those it trained. A sharded teacher is not
    given back.
    """

    def __init__(
        self,
        objective: Objective,
        optimisation: Optimisation,
        execution: Execution,
        ranks: Ranks,
        *,
        rows: int,
        micro: int,
    ) -> None:
        self.device = device_of(execution, ranks)
        self.ranks = ranks
        self.objective = objective.to(self.device)
        self._clipping = optimisation.gradient_clipping
        self._norm = torch.zeros(())
        self._dtype = torch.bfloat16 if optimisation.precision == "bf16" else torch.float32
        self._kept = _keep(objective, everything=self._dtype != torch.float32)
        self.parameters = dict(objective.named_parameters())
        self._linear = torch.nn.functional.linear
        self._dropouts = dropouts(objective.student)
        join_process_group(self.device, ranks, execution.collective_timeout_s)
        accumulation = rows // ranks.world // micro
        config = configuration(optimisation, execution, rows=rows, micro=micro, accumulation=accumulation)
        self.zero_stage: int = config["zero_optimization"]["stage"]
        _cast_buffers(objective.student, self._dtype)
        self._teacher = self._place_teacher(config, sharded=execution.shard_teacher and self.zero_stage == 3)
        if execution.activation_checkpointing:
            objective.student.activation_checkpointing_enable({"use_reentrant": False})
        self._engine = self._initialize(_optimizer(self.parameters.values(), optimisation), config)
        if self._dtype != torch.float32:
            for name in self._trained():
                self._set_full(name, "weight", self._kept[name])

    def _initialize(self, optimizer: torch.optim.Optimizer, config: dict[str, Any]) -> Any:
        deepspeed = _deepspeed(self.device, self.ranks)
        if self.zero_stage == 3:
            for module, parameters in self.objective.read_elsewhere():
                for parameter in parameters:
                    deepspeed.zero.register_external_parameter(module, parameter)
        with _quiet():
            engine, *_ = deepspeed.initialize(model=self.objective, optimizer=optimizer, config=config)
        engine.train()
        if self.zero_stage in (1, 2):
            _create_moments(engine.optimizer.optimizer)
        return engine

    def _place_teacher(self, config: dict[str, Any], *, sharded: bool) -> Any:
        """Put the frozen teacher on the device in the inference dtype; sharded, in an engine of its own (returned)."""
        teacher = self.objective.teacher
        if teacher is None:
            return None
        _cast_buffers(teacher, self._dtype)
        for parameter in teacher.parameters():
            parameter.data = parameter.data.to(self._dtype)
        if not sharded:
            teacher.to(self.device)
            return None
        deepspeed = _deepspeed(self.device, self.ranks)
        with _quiet():
            engine, *_ = deepspeed.initialize(model=teacher, config=config)
        engine.eval()
        self.objective.gathering = deepspeed.zero.GatheredParameters
        return engine

    def step(self, micro_batches: Sequence[MicroBatch], learning_rate: float) -> dict[str, float]:
        """One optimiser step; the loss and its parts as means over the global batch.

        The loss of each micro-batch counts by its share of the global batch, so that the sum over workers is the mean
        over its rows. Nothing is updated when the loss is not finite. Dropout is keyed by row.
        """
        for group in self._inner.param_groups:
            group["lr"] = learning_rate
        totals: dict[str, Tensor] = {}
        with _quiet():
            for place, batch in enumerate(micro_batches):
                self._engine.set_gradient_accumulation_boundary(place == len(micro_batches) - 1)
                key_rows(self._dropouts, batch.first_row)
                loss = self._engine({name: tensor.to(self.device) for name, tensor in batch.tensors.items()})
                self._engine.backward(loss * (batch.share * self.ranks.world), scale_wrt_gas=False)
                for name, value in {"loss": loss.detach(), **self.objective.parts}.items():
                    totals[name] = totals.get(name, 0.0) + value.double() * batch.share
            means = self.summed(totals)
            if math.isfinite(means["loss"]):
                if not self.zero_stage:
                    self._clip()
                self._engine.step()
        return means

    def _clip(self) -> None:
        gradients = [parameter.grad for parameter in self.parameters.values() if parameter.grad is not None]
        self._norm = torch.nn.utils.get_total_norm(gradients)
        if self._clipping and math.isfinite(self._norm):
            torch.nn.utils.clip_grads_with_norm_(self.parameters.values(), self._clipping, self._norm)

    def summed(self, values: Mapping[str, Tensor | float]) -> dict[str, float]:
        """Each value summed over the workers."""
        tensors = [torch.as_tensor(value, dtype=torch.float64, device=self.device) for value in values.values()]
        packed = torch.stack(tensors)
        if self.ranks.world > 1:
            dist.all_reduce(packed)
        return dict(zip(values, packed.tolist(), strict=True))

    def gradient_norm(self) -> float:
        """Global norm before clipping in the last step."""
        return float(self._engine.get_global_grad_norm() if self.zero_stage else self._norm)

    def full_state(self, kind: str) -> dict[str, Tensor]:
        """Name -> full fp32 tensor of each trained parameter, on the CPU; `kind` is `weight` or one of `MOMENTS`."""
        with _quiet():
            return {name: self._full(name, kind) for name in self._trained()}

    def load_moments(self, moments: Mapping[str, Mapping[str, Tensor]], step: int, batch: Sequence[MicroBatch]) -> None:
        """Continue as after `step` steps; the objective held the checkpoint's weights when the engine was made.

        `batch` may be any: a step on it at learning rate 0 makes DeepSpeed create the state that is then replaced.
        """
        weights = self.full_state("weight")
        if self.zero_stage:
            self.step(batch, 0.0)
        for name in self._trained():
            for kind in MOMENTS:
                self._set_full(name, kind, moments[kind][name])
            self._set_full(name, "weight", weights[name])
        for values in self._inner.state.values():
            values["step"] = torch.tensor(float(step), device=self.device)

    def abandon(self) -> None:
        """Dismantle the engine after an error: talks to no other worker, and leaves the objective unusable."""
        self._destroy()

    def _destroy(self) -> None:
        """End DeepSpeed's engine, and give torch back the linear function that stage 3 replaces for the process."""
        self._engine.destroy()
        if self._teacher is not None:
            self._teacher.destroy()
        torch.nn.functional.linear = self._linear

    def close(self) -> None:
        """Put the full fp32 weights back into the objective and dismantle the engine."""
        weights = self._kept | self.full_state("weight")
        self._destroy()
        fresh = {
            id(parameter): nn.Parameter(weights[name].to(self.device), requires_grad=parameter.requires_grad)
            for name, parameter in self.parameters.items()
        }
        for module in self.objective.modules():
            _unwrap(module, fresh)
        for name, buffer in self.objective.named_buffers():
            if name in self._kept:
                buffer.data = self._kept[name].to(self.device)
        del self._engine, self.parameters

    def _trained(self) -> list[str]:
        return [name for name, parameter in self.parameters.items() if parameter.requires_grad]

    @property
    def _inner(self) -> torch.optim.Optimizer:
        optimizer = self._engine.optimizer
        inner: torch.optim.Optimizer = optimizer.optimizer if self.zero_stage else optimizer
        return inner

    def _full(self, name: str, kind: str) -> Tensor:
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        parameter = self.parameters[name]
        if not self.zero_stage:
            value = parameter.detach() if kind == "weight" else self._inner.state[parameter][kind]
        elif kind == "weight":
            value = safe_get_full_fp32_param(parameter)
        else:
            value = safe_get_full_optimizer_state(parameter, kind)
        return value.detach().to("cpu", copy=True).view(self._shape(parameter))

    def _set_full(self, name: str, kind: str, value: Tensor) -> None:
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        parameter, value = self.parameters[name], value.to(self.device)
        if not self.zero_stage and kind == "weight":
            parameter.data.copy_(value)
        elif not self.zero_stage:
            state = self._inner.state[parameter]
            state.setdefault("step", torch.zeros((), device=self.device))
            state[kind] = value.clone()
        elif kind == "weight":
            safe_set_full_fp32_param(parameter, value)
        else:
            safe_set_full_optimizer_state(parameter, value, kind)

    @staticmethod
    def _shape(parameter: nn.Parameter) -> torch.Size:
        shape: torch.Size = getattr(parameter, "ds_shape", parameter.shape)
        return shape


def _optimizer(parameters: Iterable[nn.Parameter], optimisation: Optimisation) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        decay_groups(list(parameters), optimisation.weight_decay),
        lr=optimisation.learning_rate,
        betas=(optimisation.beta1, optimisation.beta2),
        eps=optimisation.epsilon,
        fused=True,
    )


def _create_moments(optimizer: torch.optim.Optimizer) -> None:
    """Make AdamW's state now: ZeRO 1 and 2 map it to parameters after the first group's first step, for all groups."""
    for group in optimizer.param_groups:
        for flat in group["params"]:
            moments = {kind: torch.zeros_like(flat) for kind in MOMENTS}
            optimizer.state[flat] = {"step": torch.zeros((), device=flat.device), **moments}


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what torch says about the collectives and scripting that DeepSpeed uses."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.(distributed|jit)\.", category=Warning)
        yield


def _keep(objective: nn.Module, *, everything: bool) -> dict[str, Tensor]:
    """Copies on the CPU of what training cannot give back: frozen parameters; with `everything`, all and buffers."""
    kept: dict[str, Tensor] = {name: p for name, p in objective.named_parameters() if everything or not p.requires_grad}
    if everything:
        persistent = objective.state_dict(keep_vars=True).keys()
        kept |= {name: b for name, b in objective.named_buffers() if name in persistent and b.is_floating_point()}
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in kept.items()}


def _cast_buffers(model: nn.Module, dtype: torch.dtype) -> None:
    """Cast what is stored with the weights; others, such as rotary frequencies, are kept in fp32."""
    persistent = model.state_dict(keep_vars=True).keys()
    for name, buffer in model.named_buffers():
        if name in persistent and buffer.is_floating_point():
            buffer.data = buffer.data.to(dtype)


def _unwrap(module: nn.Module, fresh: Mapping[int, nn.Parameter]) -> None:
    """Give a module its new parameters and take away what DeepSpeed put on it."""
    module._parameters = {
        name: None if parameter is None else fresh[id(parameter)] for name, parameter in module._parameters.items()
    }
    marks = [name for name in vars(module) if name.startswith("ds_")]
    for name in (*marks, "_original_parameters", "_external_params"):
        vars(module).pop(name, None)
