"""Antibody keeps a language model safe while other people fine-tune it.

`align` and `finetune` are the two stages, from settings to a run directory. `AntibodyAlignmentTrainer` and
`AntibodyTrainer` are the same stages as drop-ins for `trl.SFTTrainer`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from antibody.evaluation.evaluate import evaluate
    from antibody.evaluation.settings import EvaluationSettings
    from antibody.training.aligned import aligned
    from antibody.training.alignment_trainer import AntibodyAlignmentTrainer
    from antibody.training.configs import AntibodyAlignmentConfig, AntibodyConfig
    from antibody.training.finetuning_trainer import AntibodyTrainer
    from antibody.training.settings import AlignmentSettings, FinetuningSettings
    from antibody.training.stages import align, finetune

_HOMES = {
    "align": "antibody.training.stages",
    "aligned": "antibody.training.aligned",
    "finetune": "antibody.training.stages",
    "AlignmentSettings": "antibody.training.settings",
    "FinetuningSettings": "antibody.training.settings",
    "AntibodyAlignmentConfig": "antibody.training.configs",
    "AntibodyConfig": "antibody.training.configs",
    "AntibodyAlignmentTrainer": "antibody.training.alignment_trainer",
    "AntibodyTrainer": "antibody.training.finetuning_trainer",
    "evaluate": "antibody.evaluation.evaluate",
    "EvaluationSettings": "antibody.evaluation.settings",
}

__all__ = [
    "AlignmentSettings",
    "AntibodyAlignmentConfig",
    "AntibodyAlignmentTrainer",
    "AntibodyConfig",
    "AntibodyTrainer",
    "EvaluationSettings",
    "FinetuningSettings",
    "align",
    "aligned",
    "evaluate",
    "finetune",
]


def __getattr__(name: str) -> Any:
    # Loaded on first use: torch and TRL take seconds, which `antibody --help` should not.
    if name not in _HOMES:
        raise AttributeError(f"module 'antibody' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
