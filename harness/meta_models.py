"""Models without weights, on torch's meta device: shapes and FLOPs of a teacher and its students before anything runs.

Costs no memory. A forward pass there gives tensors without values and raises where shapes do not fit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from methods import student
from methods.student_config import surgery_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from methods.interface import Plan


def meta_teacher(config: PretrainedConfig) -> PreTrainedModel:
    """The model that `config` describes, factorised layers included where it declares some."""
    with torch.device("meta"):
        return student.build(config, surgery_of(config))


def meta_student(config: PretrainedConfig, plan: Plan) -> PreTrainedModel:
    """The student that `plan` makes of a teacher of this configuration.

    Raises:
        MethodError: the plan names a module that the teacher does not have, or a layer type that nothing defines.
    """
    with torch.device("meta"):
        return student.build(config, plan.surgery, changes=plan.config_changes, trained=plan.trained)
