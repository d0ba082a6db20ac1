"""What is minimised: loss = ce * CE + kd * T^2 D(teacher, student) + taps * sum over taps of weight * loss(tap).

An objective is the module that the engine trains: its forward pass takes a batch and returns the scalar loss. The
student is a submodule; the frozen teacher is not, so that the engine neither partitions, trains nor saves it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from harness.engine.divergences import distillation, divergence_of
from harness.engine.losses import cross_entropy
from harness.engine.pooling import last_token_logits
from harness.engine.taps import Recording, check_taps, projections, recording, tap_loss
from harness.engine.vocabulary import VocabularyLoss, check_head
from harness.stage import StageFailure
from methods.interface import Tap
from methods.recipe import Losses

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Batch = Mapping[str, Tensor]


class Objective(nn.Module):
    """A student, a frozen teacher or None, the weights of the losses, and the taps that compare the two.

    Taps are ignored when their weight in `losses` is 0. `parts` holds the terms of the last forward pass, detached.
    `gathering` makes partitioned parameters of the teacher whole inside a block; the engine sets it.
    `projections` holds the learned maps of the taps that have one; they train with the student and are not part of it.

    Raises:
        StageFailure: a loss needs a teacher and there is none, a tap names a module that is not there, or compares
            tensors of different widths.
    """

    def __init__(
        self, student: PreTrainedModel, teacher: PreTrainedModel | None, losses: Losses, taps: Sequence[Tap] = ()
    ) -> None:
        super().__init__()
        if losses.needs_teacher and teacher is None:
            raise StageFailure("losses: kd and taps need a teacher; this stage has none")
        self.student = student
        self.losses = losses
        self.taps = tuple(taps) if losses.taps else ()
        self.parts: dict[str, Tensor] = {}
        self.projections = nn.ModuleDict()
        self.gathering: Callable[[Sequence[nn.Parameter]], AbstractContextManager[Any]] = lambda _: nullcontext()
        self._outside = (teacher.eval().requires_grad_(False),) if teacher is not None and losses.needs_teacher else ()
        self._check()

    @property
    def teacher(self) -> PreTrainedModel | None:
        """The frozen teacher; None where no loss needs one."""
        return self._outside[0] if self._outside else None

    def read_elsewhere(self) -> Sequence[tuple[nn.Module, Sequence[nn.Parameter]]]:
        """Modules and the parameters of other modules that they read; for engines that partition parameters."""
        return ()

    def _check(self) -> None:
        """Run both models on four tokens, so that whatever cannot work fails here and not at the first step."""
        batch = {"input_ids": torch.arange(4, device=self.student.device)[None]}
        with torch.no_grad(), _evaluating(self.student):
            with recording(self.student, self.taps, "student") as ours:
                self.student(**batch, use_cache=False)
            if self.teacher is not None:
                batch = {"input_ids": batch["input_ids"].to(self.teacher.device)}
                with recording(self.teacher, self.taps, "teacher") as theirs:
                    self.teacher(**batch, use_cache=False)
                check_taps(self.taps, ours, theirs)
                self.projections = projections(self.taps, ours, theirs)

    def _tap_losses(self, ours: Recording, theirs: Recording, mask_BT: Tensor | None) -> Tensor:
        terms = [
            tap.weight * tap_loss(tap, ours, theirs, mask_BT, self.projections[str(number)] if tap.project else None)
            for number, tap in enumerate(self.taps)
        ]
        total = torch.stack(terms).sum()
        self.parts["taps"] = total.detach()
        return self.losses.taps * total


class LanguageModelObjective(Objective):
    """Next-token prediction from windows: `input_ids` and `targets`, both (B, T); the loss is a mean over tokens.

    Raises:
        StageFailure: also when the student's vocabulary is not the teacher's, or a head is not linear.
    """

    def __init__(
        self, student: PreTrainedModel, teacher: PreTrainedModel | None, losses: Losses, taps: Sequence[Tap] = ()
    ) -> None:
        super().__init__(student, teacher, losses, taps)
        self.vocabulary = VocabularyLoss(student, self.teacher if losses.kd else None, losses)

    def forward(self, batch: Batch) -> Tensor:
        teacher_BTD, theirs = self._teacher_pass(batch["input_ids"])
        with recording(self.student, self.taps, "student") as ours:
            student_BTD = _hidden(self.student, batch["input_ids"])
        with self.gathering(self.vocabulary.teacher_parameters_read()):
            loss, ce, kd = self.vocabulary(student_BTD, batch["targets"], teacher_BTD)
        self.parts = {"ce": ce} | ({"kd": kd} if self.losses.kd else {})
        total: Tensor = loss + self._tap_losses(ours, theirs, None) if self.taps else loss
        return total

    def read_elsewhere(self) -> Sequence[tuple[nn.Module, Sequence[nn.Parameter]]]:
        return ((self.vocabulary, self.vocabulary.parameters_read()),)

    @torch.no_grad()
    def _teacher_pass(self, input_ids: Tensor) -> tuple[Tensor | None, Recording]:
        if self.teacher is None:
            return None, Recording()
        with recording(self.teacher, self.taps, "teacher") as theirs:
            return _hidden(self.teacher, input_ids), theirs

    def _check(self) -> None:
        super()._check()
        models = [("student", self.student)] + ([("teacher", self.teacher)] if self.teacher is not None else [])
        for side, model in models:
            with _evaluating(model):
                check_head(model, side)


class ClassificationObjective(Objective):
    """Classification with `input_ids`, `attention_mask` (B, T) and `labels` (B); the loss is a mean over examples.

    With one label it is regression: CE becomes the squared error to the label, and the distillation term the squared
    error to the teacher's prediction (a softmax over one class says nothing).
    """

    def forward(self, batch: Batch) -> Tensor:
        inputs = batch["input_ids"], batch["attention_mask"]
        with recording(self.student, self.taps, "student") as ours:
            logits_BC = last_token_logits(self.student, *inputs)
        hard = self._hard_loss(logits_BC, batch["labels"])
        self.parts = {"ce": hard.detach()}
        loss = self.losses.ce * hard
        if self.teacher is None:
            return loss
        with torch.no_grad(), recording(self.teacher, self.taps, "teacher") as theirs:
            teacher_BC = last_token_logits(self.teacher, *inputs)
        if self.losses.kd:
            soft = self._soft_loss(logits_BC, teacher_BC)
            self.parts["kd"] = soft.detach()
            loss = loss + self.losses.kd * soft
        return loss + self._tap_losses(ours, theirs, batch["attention_mask"]) if self.taps else loss

    def _hard_loss(self, logits_BC: Tensor, labels_B: Tensor) -> Tensor:
        if logits_BC.shape[-1] == 1:
            return (logits_BC[:, 0] - labels_B.float()).square().mean()
        return cross_entropy(logits_BC, labels_B).mean()

    def _soft_loss(self, logits_BC: Tensor, teacher_BC: Tensor) -> Tensor:
        if logits_BC.shape[-1] == 1:
            return (logits_BC - teacher_BC).square().mean()
        return distillation(logits_BC, teacher_BC, divergence_of(self.losses), self.losses.temperature).mean()


def _hidden(model: Any, input_ids: Tensor) -> Tensor:
    """Hidden states (B, T, D) that the output head is applied to."""
    hidden: Tensor = model.base_model(input_ids=input_ids, use_cache=False).last_hidden_state
    return hidden


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
