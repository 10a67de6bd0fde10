"""A run is a directory: what one training made of one model, with all that is needed to repeat it."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from antibody.errors import ModelError, UsageError
from antibody.files import sha256, write_json, write_text
from antibody.models.base import BaseModel, load_base
from antibody.models.lora import load_adapter

ADAPTER_FILE = "adapter_model.safetensors"
REFUSALS_FILE = "refusals.jsonl"


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

    def save_adapter(self, model: Any) -> None:
        """Saves the adapter as plain PEFT, whole or not at all."""
        temporary = self.path / ".adapter"
        shutil.rmtree(temporary, ignore_errors=True)
        model.save_pretrained(str(temporary))
        shutil.rmtree(self.adapter, ignore_errors=True)
        temporary.rename(self.adapter)

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Written last: it says that the run is complete, and fixes the adapter's hash."""
        write_json(self.path / "manifest.json", manifest | {"adapter_sha256": sha256(self.adapter / ADAPTER_FILE)})


def is_run(path: str | Path) -> bool:
    return (Path(path) / "config.yaml").exists()


def refusals_of(model: str | Path) -> str:
    """Where the refusals are that a model was taught and so finds likely: its aligned run, or the embedded corpus."""
    for run in (Run(Path(model)), *_ancestors(model)):
        if (run.path / REFUSALS_FILE).exists():
            return str(run.path / REFUSALS_FILE)
    return "embedded:refusals"


def _ancestors(model: str | Path) -> Iterator[Run]:
    while is_run(model) and Run(Path(model)).complete and (parent := Run(Path(model)).manifest()["parent"]):
        yield Run(Path(parent))
        model = parent


def open_run(path: Path, config: dict[str, Any], *, resume: bool, force: bool) -> Run:
    """Makes a new run directory, or opens one to continue it. Nothing is ever overwritten silently.

    Raises:
        UsageError: The directory exists and neither option was given, or it was begun with other settings.
    """
    run = Run(path)
    if resume and force:
        raise UsageError("resume and force exclude each other.", hint="Continue a run or replace it.", code="conflict")
    if path.exists() and any(path.iterdir()):
        if force:
            if not is_run(path):
                raise UsageError(
                    f"{path} is not a run directory, so it will not be replaced.",
                    hint="Choose another.",
                    code="not_a_run",
                )
            shutil.rmtree(path)
        elif not resume:
            raise UsageError(
                f"{path} already exists.",
                hint="Use --resume to continue it or --force to replace it.",
                code="run_exists",
            )
    if resume and is_run(path):
        begun = run.config()
        changed = sorted(key for key in config.keys() | begun.keys() if config.get(key) != begun.get(key))
        if changed:
            raise UsageError(
                f"{path} was begun with other settings: {', '.join(changed)}.",
                hint="Resume with the settings in its config.yaml, or choose a new directory.",
                code="resume_settings_differ",
            )
    write_text(path / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    return run


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
