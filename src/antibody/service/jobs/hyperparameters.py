"""From a job and the policy to the settings of its training."""

import math
from pathlib import Path

from antibody.models.run import base_name
from antibody.service.policy import Policy
from antibody.service.storage.runs import TRAINING_ROWS
from antibody.service.storage.tables import Job
from antibody.service.wire.jobs import UsedHyperparameters
from antibody.training.presets import preset_for
from antibody.training.settings import FinetuningSettings

MOST_EPOCHS = 50
MOST_BATCH = 256


def resolve(job: Job, policy: Policy, *, rows: int, processes: int) -> UsedHyperparameters:
    """What the job trains with, where its user, or the policy, said auto.

    Args:
        job: With what was asked for.
        policy: The provider's.
        rows: Records of the training file.
        processes: Which a batch is split over equally.
    """
    base = policy.models[job.model]
    stage = preset_for(base_name(base.run)).finetuning
    asked = {key: value for key, value in job.asked.items() if value != "auto"}
    batch = int(asked.get("batch_size") or base.batch_size or min(stage.batch_size, rows))
    batch = min(MOST_BATCH, processes * math.ceil(batch / processes))
    epochs = round(stage.epochs or 1) if stage.steps is None else math.ceil(stage.steps * batch / rows)
    return UsedHyperparameters(
        batch_size=batch,
        learning_rate_multiplier=float(asked.get("learning_rate_multiplier") or 1.0),
        n_epochs=int(asked.get("n_epochs") or base.n_epochs or min(MOST_EPOCHS, max(1, epochs))),
    )


def settings_of(job: Job, policy: Policy, used: UsedHyperparameters, folder: Path) -> FinetuningSettings:
    """The settings of the training in `folder`, where the rows are."""
    base, defence, training = policy.models[job.model], policy.defence, policy.training
    rate = base.learning_rate or preset_for(base_name(base.run)).finetuning.learning_rate
    return FinetuningSettings(
        model=base.run,
        output=folder / "run",
        data=str(folder / TRAINING_ROWS),
        batch_size=int(used.batch_size),
        epochs=float(used.n_epochs),
        learning_rate=rate * float(used.learning_rate_multiplier),
        seed=job.seed,
        gate=defence.gate,
        gate_threshold=None if defence.gate == "off" else defence.threshold,
        allow_unaligned=base.allow_unaligned,
        max_length=training.max_length,
        micro_batch_size=training.micro_batch_size,
        save_steps=training.save_steps,
        dtype=training.dtype,
        device=training.device,
        resume=True,
    )
