"""Settings that belong together, each with its origin."""

from dataclasses import dataclass

from antibody.models.bundled import BUNDLED_NAME
from antibody.models.lora import LoraSettings


@dataclass(frozen=True)
class StageSettings:
    """How long and how fast one stage trains.

    Attributes:
        learning_rate: AdamW's.
        batch_size: Rows of an optimiser step.
        epochs: Passes over the data, where ``steps`` is None.
        steps: Optimiser steps.
    """

    learning_rate: float
    batch_size: int
    epochs: float | None = None
    steps: int | None = None


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
        alignment=StageSettings(learning_rate=5e-4, batch_size=16, epochs=20),
        finetuning=StageSettings(learning_rate=1e-5, batch_size=16, epochs=20),
    ),
    # Measured on the bundled model with `antibody demo`: alpha = 2r lets 30 to 40 steps do what 20 epochs do at r/8.
    "small": Preset(
        lora=LoraSettings(r=32, alpha=64),
        alignment=StageSettings(learning_rate=5e-4, batch_size=4, steps=40),
        finetuning=StageSettings(learning_rate=2e-4, batch_size=8, steps=40),
    ),
}


def preset_for(model: str, name: str = "auto") -> Preset:
    """``auto`` is ``small`` for the bundled model and ``paper`` for any other."""
    if name == "auto":
        name = "small" if model == BUNDLED_NAME else "paper"
    return PRESETS[name]
