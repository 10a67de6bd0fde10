"""LoRA adapters, by PEFT."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model

from antibody.errors import ModelError

ADAPTER_FILE = "adapter_model.safetensors"


@dataclass(frozen=True)
class LoraSettings:
    """The adapter's shape. The defaults are the published ones (arXiv 2603.00498 and its code, for Llama-2-7B).

    Attributes:
        r: Rank.
        alpha: The update is scaled by alpha / r.
        dropout: 0, as published. Antibody refuses any other value: the passes of a step must see one network.
        target_modules: Names of the linear layers that are adapted.
    """

    r: int = 32
    alpha: int = 4
    dropout: float = 0.0
    target_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")

    def to_peft(self) -> LoraConfig:
        return LoraConfig(
            r=self.r,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=list(self.target_modules),
            task_type="CAUSAL_LM",
        )


def new_adapter(model: Any, settings: LoraSettings) -> Any:
    """Wraps a base model with a fresh adapter. Its start depends on torch's seed.

    Raises:
        ModelError: The model has none of the named layers.
    """
    try:
        return get_peft_model(model, settings.to_peft())
    except ValueError as error:
        raise ModelError(
            f"LoRA cannot be added: {error}",
            hint="Name the model's attention projections with --target-modules.",
            code="no_target_modules",
        ) from error


def load_adapter(model: Any, folder: Path, *, trainable: bool) -> Any:
    """Wraps a base model with a saved adapter, to go on training it or to use it.

    Raises:
        ModelError: The adapter is missing or does not fit the model.
    """
    if not (folder / ADAPTER_FILE).exists():
        raise ModelError(
            f"{folder} holds no {ADAPTER_FILE}.",
            hint="Name a run whose training has finished, or resume it with --resume.",
            code="adapter_missing",
        )
    try:
        return PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)
    except (RuntimeError, ValueError, OSError) as error:
        raise ModelError(
            f"The adapter in {folder} does not fit the model: {error}",
            hint="Use the base model that the run's manifest.json names.",
            code="adapter_does_not_fit",
        ) from error
