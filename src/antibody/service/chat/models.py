"""The models that answer: each base model once, with the adapters that were last used."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

from antibody.errors import ModelError
from antibody.files import sha256
from antibody.models.base import BaseModel
from antibody.models.lora import ADAPTER_FILE
from antibody.models.run import Run, is_run, load_model

# An adapter is some megabytes.
MOST_ADAPTERS = 8


class Models:
    """Loads what is asked for.

    Args:
        dtype: auto, float32, bfloat16 or float16.
        device: auto, cpu, cuda ...
    """

    def __init__(self, dtype: str, device: str) -> None:
        self.dtype = dtype
        self.device = device
        self.bases: dict[str, BaseModel] = {}
        self.adapters: dict[str, OrderedDict[str, str]] = {}
        self.added = 0

    def ready(self, run: str) -> BaseModel:
        """The model with that run's adapter in use.

        Raises:
            ModelError: It cannot be loaded, or is not what its manifest says.
        """
        if not is_run(run):
            return self._loaded(f"plain {run}", run)
        described = Run(Path(run)).manifest()["model"]
        base = f"{described['name']} {described['revision']}"
        first = base not in self.bases
        loaded = self._loaded(base, run)
        adapters = self.adapters.setdefault(base, OrderedDict())
        if first:
            adapters[run] = "default"
        elif run not in adapters:
            adapters[run] = self._add(loaded.model, Run(Path(run)))
        adapters.move_to_end(run)
        loaded.model.set_adapter(adapters[run])
        while len(adapters) > MOST_ADAPTERS:
            _, forgotten = adapters.popitem(last=False)
            loaded.model.delete_adapter(forgotten)
        return loaded

    def _loaded(self, key: str, name: str) -> BaseModel:
        if key not in self.bases:
            loaded = load_model(name, dtype=self.dtype, device=self.device)
            loaded.model.eval()
            self.bases[key] = loaded
        return self.bases[key]

    def _add(self, model: Any, run: Run) -> str:
        found = sha256(run.adapter / ADAPTER_FILE)
        if found != run.manifest()["adapter_sha256"]:
            raise ModelError(
                f"The adapter in {run.adapter} is not the one its manifest.json describes.",
                hint="Restore it, or make the run again.",
                code="adapter_changed",
            )
        # Two runs may have the same adapter; each has a name of its own.
        self.added += 1
        name = f"adapter-{self.added}"
        model.load_adapter(str(run.adapter), adapter_name=name)
        model.eval()
        return name
