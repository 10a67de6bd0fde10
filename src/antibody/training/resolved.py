"""A stage's settings made whole: with the preset's values, the method's options and this machine's dtype."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from accelerate import PartialState

from antibody.errors import UsageError
from antibody.models.base import choose_device, choose_dtype
from antibody.models.lora import LoraSettings
from antibody.models.run import Run, base_name, is_run
from antibody.training.methods import Method, Option
from antibody.training.presets import Preset, StageSettings, preset_for
from antibody.training.settings import TrainingSettings

Settings = TypeVar("Settings", bound=TrainingSettings)


def chosen_preset(settings: TrainingSettings) -> Preset:
    return preset_for(base_name(settings.model), settings.preset)


def resolved(
    settings: Settings, stage: StageSettings, lora: LoraSettings, methods: Mapping[str, Method]
) -> tuple[Settings, dict[str, Option]]:
    """With the preset's values and the machine's dtype filled in, so that config.yaml repeats the run anywhere.

    Returns:
        The settings, and all options of the method.

    Raises:
        UsageError: Two options exclude each other, the method takes no such option, or the device cannot be trained on.
    """
    options = stage.options_of(settings, methods)
    shape = (settings.lora_r, settings.lora_alpha, settings.target_modules)
    if is_run(settings.model) and shape != (None, None, None):
        raise UsageError(
            "The adapter of a run goes on being trained, so its shape cannot be chosen.",
            hint="Leave out --lora-r, --lora-alpha and --target-modules.",
            code="conflict",
        )
    device = choose_device(settings.device)
    processes = PartialState(cpu=device.type == "cpu").num_processes
    batch_size = settings.batch_size or stage.batch_size
    if batch_size % (settings.gradient_accumulation_steps * processes):
        raise UsageError(
            f"A batch of {batch_size} rows cannot be split equally over {processes} processes and "
            f"{settings.gradient_accumulation_steps} gradient_accumulation_steps.",
            hint="Choose a batch_size that both divide.",
            code="conflict",
        )
    if device.index:
        raise UsageError(
            f"Training takes the first device it sees, not {device}.",
            hint=f"Set CUDA_VISIBLE_DEVICES={device.index} and leave --device auto.",
            code="device",
        )
    defaults: dict[str, Any] = {
        "batch_size": stage.batch_size,
        "learning_rate": stage.learning_rate,
    }
    if settings.steps is None and settings.epochs is None:
        defaults |= {"steps": stage.steps, "epochs": stage.epochs}
    if not is_run(settings.model):
        defaults |= {"lora_r": lora.r, "lora_alpha": lora.alpha, "target_modules": lora.target_modules}
    dtype: Any = str(choose_dtype(settings.dtype, device)).removeprefix("torch.")
    missing = {name: value for name, value in defaults.items() if getattr(settings, name) is None}
    named: dict[str, Any] = {name: options.get(name, getattr(settings, name)) for name in settings.named}
    rest = {name: value for name, value in options.items() if name not in named and value is not None}
    return replace(settings, dtype=dtype, options=rest, **named, **missing), options


def trainer_arguments(settings: TrainingSettings) -> dict[str, Any]:
    """The options that `transformers` trains by."""
    assert settings.batch_size, "settings are resolved by now"
    rows = settings.batch_size // PartialState().num_processes
    return {
        "output_dir": str(Run(settings.output).checkpoints),
        "per_device_train_batch_size": rows // settings.gradient_accumulation_steps,
        "gradient_accumulation_steps": settings.gradient_accumulation_steps,
        "micro_batch_size": settings.micro_batch_size,
        "learning_rate": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        "max_length": settings.max_length,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "seed": settings.seed,
        "save_steps": settings.save_steps,
        "save_total_limit": 2,
        "logging_steps": 1,
        "report_to": settings.report_to,
        "disable_tqdm": True,
        "use_cpu": choose_device(settings.device).type == "cpu",
        # The model is loaded in the dtype it is trained in; autocasting on top would only convert back and forth.
        "bf16": False,
        **({"num_train_epochs": settings.epochs} if settings.steps is None else {"max_steps": settings.steps}),
    }
