"""Settings that belong together, each with its origin."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from antibody.models.lora import LoraSettings
from antibody.names import BUNDLED_NAME


@dataclass(frozen=True)
class StageSettings:
    """How long and how fast one stage trains, and its objective's settings that depend on that.

    Attributes:
        learning_rate: AdamW's.
        batch_size: Rows of an optimiser step.
        epochs: Passes over the data, where ``steps`` is None.
        steps: Optimiser steps.
        objective: Settings of the method by name.
    """

    learning_rate: float
    batch_size: int
    epochs: float | None = None
    steps: int | None = None
    objective: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Preset:
    """An adapter's shape and the length of both stages."""

    lora: LoraSettings
    alignment: StageSettings
    finetuning: StageSettings


PRESETS: dict[str, Preset] = {
    # arXiv 2603.00498 and its code: Llama-2-7B, 5000 + 5000 alignment rows, 1000 user rows.
    "paper": Preset(
        lora=LoraSettings(r=32, alpha=4),
        alignment=StageSettings(learning_rate=5e-4, batch_size=16, epochs=20, objective={"lambda_refusal": 0.05}),
        finetuning=StageSettings(learning_rate=1e-5, batch_size=16, epochs=20, objective={"tau": 1.0}),
    ),
    # ASSUMPTION, from trials on the bundled model, see docs/results.md: alpha = 2r and the larger lambda_refusal make
    # up for dozens of steps instead of thousands.
    "small": Preset(
        lora=LoraSettings(r=32, alpha=64),
        alignment=StageSettings(learning_rate=5e-4, batch_size=4, steps=30, objective={"lambda_refusal": 0.5}),
        finetuning=StageSettings(learning_rate=2e-4, batch_size=4, steps=40, objective={"tau": 1.0}),
    ),
}


def preset_for(model: str, name: str = "auto") -> Preset:
    """``auto`` is ``small`` for the bundled model and ``paper`` for any other."""
    if name == "auto":
        name = "small" if model == BUNDLED_NAME else "paper"
    return PRESETS[name]
