"""Whether this machine has room to train a model now."""

import shutil
from pathlib import Path
from typing import NamedTuple

import psutil

# ASSUMPTION: weights, activations and the adapter's optimiser state, as a multiple of the weights on disk.
FACTOR = 3
SPARE_MEMORY = 2**29
# ASSUMPTION: some checkpoints of a small model's adapter. Where more is needed, writing them says so.
SPARE_DISK = 2**25
# Between two looks whether there is room by now.
SECONDS = 5.0


class Memory(NamedTuple):
    """In bytes.

    Attributes:
        needed: To train.
        free: At the moment.
        total: That the machine has.
    """

    needed: int
    free: int
    total: int


def memory_for(run: str) -> Memory:
    """Judged by the size of the base model's weights; a model whose files are not here is taken to need nothing."""
    # torch, which a worker that validates never needs.
    from antibody.models.run import base_name  # noqa: PLC0415
    from antibody.models.tokenizer import source_of  # noqa: PLC0415

    folder = Path(source_of(base_name(run)))
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors")) if folder.is_dir() else 0
    memory = psutil.virtual_memory()
    return Memory(FACTOR * weights + SPARE_MEMORY if weights else 0, memory.available, memory.total)


def disk_has_room(folder: Path) -> bool:
    return shutil.disk_usage(folder).free >= SPARE_DISK
