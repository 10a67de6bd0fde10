"""Settings that belong together, each with its origin."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from antibody.models.lora import LoraSettings
from antibody.names import BUNDLED_NAME
from antibody.training.methods import Method, Option, options_of
from antibody.training.settings import TrainingSettings


@dataclass(frozen=True)
class StageSettings:
    """How long and how fast one stage trains, and its objective's settings that depend on that.

    Attributes:
        learning_rate: AdamW's.
        batch_size: Rows of an optimiser step.
        epochs: Passes over the data, where ``steps`` is None.
        steps: Optimiser steps.
        options: Options by method and name that differ from the published ones.
    """

    learning_rate: float
    batch_size: int
    epochs: float | None = None
    steps: int | None = None
    options: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def options_of(self, settings: TrainingSettings, methods: Mapping[str, Method]) -> dict[str, Option]:
        """All options of the settings' method: those that are given, else the preset's, else the method's own defaults.

        Raises:
            UsageError: As `antibody.training.methods.options_of`, and where one was chosen twice.
        """
        preset = self.options.get(settings.method, {})
        return options_of(methods, settings.method, {**preset, **settings.given_options()})


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
    # ASSUMPTION, from trials on the bundled model, see docs/results.md: alpha = 2r and the larger lambda_refusal make
    # up for dozens of steps instead of thousands. Lisa's two states take turns often enough to do so more than once,
    # one step in ten on alignment rows as published.
    "small": Preset(
        lora=LoraSettings(r=32, alpha=64),
        alignment=StageSettings(
            learning_rate=5e-4, batch_size=4, steps=30, options={"antibody": {"lambda_refusal": 0.5}}
        ),
        finetuning=StageSettings(
            learning_rate=2e-4, batch_size=4, steps=40, options={"lisa": {"align_steps": 2, "finetune_steps": 18}}
        ),
    ),
}


def preset_for(model: str, name: str = "auto") -> Preset:
    """``auto`` is ``small`` for the bundled model and ``paper`` for any other."""
    if name == "auto":
        name = "small" if model == BUNDLED_NAME else "paper"
    return PRESETS[name]
