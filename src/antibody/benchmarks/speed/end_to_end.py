"""`antibody finetune` against a TRL script as whole processes: start-up, tokenisation, steps, saving.

Both train a new adapter of one shape on the same file, each with its own way of logging and saving (ours writes a
checkpoint every 10 steps, TRL every 500).
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from antibody.benchmarks.speed import trl_script
from antibody.benchmarks.speed.rows import finetuning_rows
from antibody.benchmarks.speed.settings import SpeedSettings
from antibody.errors import TrainingError, UsageError
from antibody.files import write_jsonl
from antibody.models.base import choose_device, choose_dtype
from antibody.models.bundled import bundled_model_folder
from antibody.models.run import is_run
from antibody.names import BUNDLED_NAME
from antibody.training.presets import preset_for

ROWS = 200


def end_to_end(settings: SpeedSettings, kinds: Sequence[str], batch_size: int, advance: Callable[[], None]) -> Any:
    """Seconds of each, by kind of rows.

    Args:
        settings: Model, steps and so on.
        kinds: Kinds of rows.
        batch_size: Rows of a step.
        advance: Called after each process.

    Raises:
        UsageError: The model is a run: a TRL script begins with a base model.
        TrainingError: One of the processes failed.
    """
    if is_run(settings.model):
        raise UsageError(
            f"{settings.model} is a run; whole processes begin with a base model.",
            hint="Name the base model, or leave out --end-to-end.",
            code="conflict",
        )
    # Dequantised by whoever comes first, which must not be one of the timed.
    folder = bundled_model_folder() if settings.model == BUNDLED_NAME else settings.model
    found = []
    for kind in kinds:
        with tempfile.TemporaryDirectory() as place:
            data = Path(place) / "rows.jsonl"
            rows = finetuning_rows(kind, ROWS, seed=settings.seed)
            write_jsonl(
                data,
                [
                    {"prompt": list(row.prompt), "completion": [{"role": "assistant", "content": row.response}]}
                    for row in rows
                ],
            )
            timed: dict[str, Any] = {"rows": kind, "steps": settings.steps, "batch_size": batch_size}
            for name, command in commands(settings, folder, data, Path(place), batch_size).items():
                timed[f"{name}_seconds"] = _seconds(command, cache=Path(place) / "cache")
                advance()
        timed["ratio"] = timed["antibody_seconds"] / timed["trl_seconds"]
        found.append(timed)
    return found


def commands(settings: SpeedSettings, folder: str, data: Path, place: Path, batch_size: int) -> dict[str, list[str]]:
    """The two command lines."""
    preset = preset_for(settings.model)
    device = choose_device(settings.device)
    shared = {
        "data": data,
        "steps": settings.steps,
        "batch-size": batch_size,
        "max-length": settings.max_length,
        "learning-rate": preset.finetuning.learning_rate,
        "lora-r": settings.lora_r or preset.lora.r,
        "lora-alpha": preset.lora.alpha,
        "dtype": str(choose_dtype(settings.dtype, device)).removeprefix("torch."),
    }
    options = [part for name, value in shared.items() for part in (f"--{name}", str(value))]
    options += ["--gradient-checkpointing"] if settings.gradient_checkpointing else []
    trl = [sys.executable, str(trl_script.__file__), "--model", folder, "--output", str(place / "trl")]
    trl += [*options, "--target-modules", *preset.lora.target_modules, *(["--cpu"] if device.type == "cpu" else [])]
    ours = [sys.executable, "-m", "antibody", "finetune", "--model", settings.model, "--output", str(place / "run")]
    ours += [*options, "--device", str(device), "--seed", str(settings.seed), "--allow-unaligned"]
    ours += [] if settings.micro_batch_size is None else ["--micro-batch-size", str(settings.micro_batch_size)]
    return {"trl": trl, "antibody": ours}


def _seconds(command: Sequence[str], cache: Path) -> float:
    # A cache of its own, so that no process finds rows that an earlier one tokenised.
    environment = os.environ | {"HF_DATASETS_CACHE": str(cache)}
    started = time.perf_counter()
    done = subprocess.run(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False, env=environment
    )
    seconds = time.perf_counter() - started
    if done.returncode != 0:
        raise TrainingError(
            f"`{' '.join(command)}` ended with {done.returncode}: {done.stderr.strip()[-400:]}",
            hint="Run that command by itself.",
            code="process_failed",
        )
    return seconds
