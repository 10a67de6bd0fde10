"""Loading a base model and its tokenizer, with a dtype and a device that suit the machine."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from antibody.errors import ModelError, UsageError
from antibody.models.tokenizer import UNLOADABLE, load_tokenizer, not_loadable, source_of

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class BaseModel:
    """A base model ready to be wrapped.

    Attributes:
        model: A `transformers` causal language model, on its device.
        tokenizer: Its tokenizer, with a padding token.
        name: The name it was asked for by, which loads it again.
        revision: The Hub's commit, or None for a local folder.
    """

    model: Any
    tokenizer: Any
    name: str
    revision: str | None


def choose_device(device: str = "auto") -> torch.device:
    """``auto`` is the accelerator that torch sees, else the CPU.

    Raises:
        UsageError: This machine has no such device.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if device == "auto":
        return accelerator or torch.device("cpu")
    names = ["cpu"]
    if accelerator is not None:
        numbered = [f"{accelerator.type}:{index}" for index in range(torch.accelerator.device_count())]
        names += [accelerator.type, *numbered]
    if device not in names:
        raise UsageError(
            f"There is no device {device!r} here.", hint=f"Use one of auto, {', '.join(names)}.", code="device"
        )
    return torch.device(device)


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """``auto`` is bfloat16 where the hardware multiplies it, else float32.

    A CPU without bfloat16 instructions emulates them thirty times slower than float32 (measured: one LoRA step of
    16 x 60 tokens on SmolLM2-135M, 2 cores with AVX2 alone, 4.3 s against 130 s).
    """
    if dtype != "auto":
        if dtype not in DTYPES:
            raise UsageError(
                f"There is no dtype {dtype!r}.", hint=f"Use one of auto, {', '.join(DTYPES)}.", code="dtype"
            )
        return DTYPES[dtype]
    return torch.bfloat16 if has_bfloat16(device) else torch.float32


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        return any(present for name, present in torch.cpu.get_capabilities().items() if name.endswith("bf16"))
    return False


def load_base(
    name: str,
    *,
    dtype: str = "auto",
    device: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> BaseModel:
    """Loads a base model from the bundled package, the Hub or a local folder.

    Args:
        name: ``smollm2-135m``, a Hub id, or a folder.
        dtype: ``auto``, or a key of `DTYPES`.
        device: ``auto``, ``cpu``, or an accelerator of this machine, such as ``cuda:1``.
        revision: A branch, tag or commit of the Hub.
        trust_remote_code: Run Python code that the model ships. Off unless asked for.

    Raises:
        UsageError: There is no such dtype or device.
        ModelError: The model or its tokenizer cannot be loaded.
    """
    place = choose_device(device)
    chosen_dtype = choose_dtype(dtype, place)
    source = source_of(name)
    tokenizer = load_tokenizer(name, revision=revision, trust_remote_code=trust_remote_code)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            source, revision=revision, trust_remote_code=trust_remote_code, dtype=chosen_dtype
        ).to(place)
    except UNLOADABLE as error:
        raise not_loadable(name, error) from error
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ModelError(
                f"The tokenizer of {name!r} has neither a padding nor an end token.",
                hint="Add an eos_token to its tokenizer_config.json.",
                code="no_eos_token",
            )
        tokenizer.pad_token = tokenizer.eos_token
    if not Path(source).exists():
        revision = getattr(model.config, "_commit_hash", revision)
    return BaseModel(model=model, tokenizer=tokenizer, name=name, revision=revision)
