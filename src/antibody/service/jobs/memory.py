"""Whether this machine has room to train a model now."""

from pathlib import Path

import psutil

from antibody.models.bundled import bundled_model_folder
from antibody.models.run import Run, is_run
from antibody.names import BUNDLED_NAME

# ASSUMPTION: weights, activations and the adapter's optimiser state, as a multiple of the weights on disk.
FACTOR = 3
SPARE_BYTES = 2**29


def enough_memory(run: str) -> bool:
    """Judged by the size of the base model's weights; a model whose files are not here is taken to fit."""
    name = Run(Path(run)).manifest()["model"]["name"] if is_run(run) else run
    folder = Path(bundled_model_folder() if name == BUNDLED_NAME else name)
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors")) if folder.is_dir() else 0
    return weights == 0 or psutil.virtual_memory().available > FACTOR * weights + SPARE_BYTES
