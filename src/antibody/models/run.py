"""A run is a directory: what one training made of one model, with all that is needed to repeat it."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from antibody.errors import ModelError, UsageError
from antibody.files import claim_directory, sha256, write_json, write_text
from antibody.models.base import BaseModel, load_base
from antibody.models.lora import ADAPTER_FILE, load_adapter

REFUSALS_FILE = "refusals.jsonl"
ANCHORS_FILE = "anchors.jsonl"
INPUTS_FILE = "inputs.json"
MARK = "# The settings of an Antibody run; `antibody align|finetune --config` repeats it.\n"

# Settings that cannot change a run's result, so that it may be resumed with others.
NO_INFLUENCE = {
    "gradient_accumulation_steps",
    "micro_batch_size",
    "gradient_checkpointing",
    "save_steps",
    "report_to",
}


@dataclass(frozen=True)
class Run:
    """A run directory. It exists once its ``config.yaml`` does, and is complete once its ``manifest.json`` is there."""

    path: Path

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def complete(self) -> bool:
        return (self.path / "manifest.json").exists()

    def manifest(self) -> dict[str, Any]:
        """The manifest of a complete run.

        Raises:
            ModelError: The run has not finished.
        """
        if not self.complete:
            raise ModelError(
                f"{self.path} is not a finished run: it has no manifest.json.",
                hint="Finish it with the command that began it and --resume.",
                code="run_incomplete",
            )
        content: dict[str, Any] = json.loads((self.path / "manifest.json").read_text(encoding="utf-8"))
        return content

    def config(self) -> dict[str, Any]:
        content: dict[str, Any] = yaml.safe_load((self.path / "config.yaml").read_text(encoding="utf-8"))
        return content

    def save_adapter(self, model: Any, parameters: dict[str, Tensor]) -> None:
        """Saves the adapter as plain PEFT, whole or not at all.

        Args:
            model: The PEFT model, whose own parameters may be sharded.
            parameters: The trained ones, whole, by name.
        """
        temporary = self.path / ".adapter"
        shutil.rmtree(temporary, ignore_errors=True)
        model.save_pretrained(str(temporary), state_dict=parameters)
        # PEFT's unfilled template of a card; the run's own is beside the folder.
        (temporary / "README.md").unlink(missing_ok=True)
        shutil.rmtree(self.adapter, ignore_errors=True)
        temporary.rename(self.adapter)

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Written last: it says that the run is complete, and fixes the adapter's hash."""
        write_json(self.path / "manifest.json", manifest | {"adapter_sha256": sha256(self.adapter / ADAPTER_FILE)})


def is_run(path: str | Path) -> bool:
    """Whether a directory was begun by us: its ``config.yaml`` says so in its first line."""
    config = Path(path) / "config.yaml"
    return config.is_file() and config.read_text(encoding="utf-8").startswith(MARK)


def run_of(model: str | Path) -> Run:
    """The run of that name.

    Raises:
        UsageError: ``not_a_run``.
    """
    if not is_run(model):
        raise UsageError(f"{model} is not a run.", hint="Name one that `antibody align` made.", code="not_a_run")
    return Run(Path(model))


def base_name(model: str) -> str:
    """The name of a run's base model; any other model's own.

    Raises:
        ModelError: It is a run that is not complete.
    """
    return str(Run(Path(model)).manifest()["model"]["name"]) if is_run(model) else model


def refusals_of(model: str | Path) -> str:
    """Where the refusals are that a model was taught and so finds likely: in its run, or in the embedded corpus."""
    file = Path(model) / REFUSALS_FILE
    return str(file) if file.exists() else "embedded:refusals"


def anchors_of(model: str | Path) -> str | None:
    """Where the anchors are that a run was aligned on; None where it holds none."""
    file = Path(model) / ANCHORS_FILE
    return str(file) if file.exists() else None


def open_run(path: Path, config: dict[str, Any], inputs: dict[str, str], *, resume: bool, force: bool) -> Run:
    """Makes a new run directory, or opens one to continue it. Nothing is ever overwritten silently.

    Args:
        path: The directory.
        config: All settings.
        inputs: A hash of everything that is read, by name.
        resume: Continue the run that is there, if there is one.
        force: Replace it.

    Raises:
        UsageError: The directory exists and neither option was given, is no run, or the run was begun with other
            settings or inputs.
    """
    run = Run(path)
    claim_directory(path, ours=is_run(path), resume=resume, force=force)
    if is_run(path):
        _refuse_changes(path, "settings", run.config(), config)
        _refuse_changes(path, "inputs", json.loads((path / INPUTS_FILE).read_text(encoding="utf-8")), inputs)
    write_json(path / INPUTS_FILE, inputs)
    write_text(path / "config.yaml", MARK + yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    return run


def _refuse_changes(path: Path, kind: str, begun: dict[str, Any], now: dict[str, Any]) -> None:
    changed = sorted(key for key in (now.keys() | begun.keys()) - NO_INFLUENCE if now.get(key) != begun.get(key))
    if changed:
        raise UsageError(
            f"{path} was begun with other {kind}: {', '.join(changed)}.",
            hint="Resume with those it was begun with, or choose a new directory.",
            code=f"resume_{kind}_differ",
        )


def load_model(
    name: str | Path,
    *,
    trainable: bool = False,
    dtype: str = "auto",
    device: str = "auto",
    trust_remote_code: bool = False,
) -> BaseModel:
    """Loads a base model by name, or a run: its base model with its adapter.

    Raises:
        ModelError: The run is incomplete, its adapter has changed since it was made, or the base cannot be loaded.
    """
    if not is_run(name):
        return load_base(str(name), dtype=dtype, device=device, trust_remote_code=trust_remote_code)
    run = Run(Path(name))
    manifest = run.manifest()
    if sha256(run.adapter / ADAPTER_FILE) != manifest["adapter_sha256"]:
        raise ModelError(
            f"The adapter in {run.adapter} is not the one its manifest.json describes.",
            hint="Restore it, or make the run again.",
            code="adapter_changed",
        )
    base = load_base(
        manifest["model"]["name"],
        dtype=dtype,
        device=device,
        revision=manifest["model"]["revision"],
        trust_remote_code=trust_remote_code,
    )
    model = load_adapter(base.model, run.adapter, trainable=trainable)
    return BaseModel(model=model, tokenizer=base.tokenizer, name=base.name, revision=base.revision)
