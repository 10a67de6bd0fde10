"""A disk that can be filled, and what may not be half-written on it."""

import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open


@contextmanager
def mounted_disk(megabytes: int) -> Iterator[Path | None]:
    """A small disk; None where this process may not mount one: that takes root, and a kernel that lets it."""
    folder = Path(tempfile.mkdtemp(prefix="antibody-disk-"))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    mounted = os.getuid() == 0 and subprocess.run(mount, check=False, capture_output=True).returncode == 0
    try:
        yield folder if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()


def fill(disk: Path) -> Path:
    """To the last byte. Removed, the file that is returned makes room again."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file:
        piece = bytes(2**20)
        while piece:
            try:
                file.write(piece)
            except OSError:
                piece = piece[: len(piece) // 2]
    return filler


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def half_written(service: Path) -> list[Path]:
    """Blobs that are not what they are called, files of runs that cannot be read, and what nobody cleared away."""
    blobs = [path for path in files_below(service / "blobs") if _sha256(path) != path.name]
    return blobs + [path for path in files_below(service / "jobs") if not _readable(path)]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _readable(path: Path) -> bool:
    if path.name.startswith("."):
        return path.name == ".lock"
    try:
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".jsonl":
            return bool([json.loads(line) for line in path.read_text().splitlines()])
        elif path.suffix == ".safetensors":
            with safe_open(path, "pt") as tensors:
                return bool(tensors.keys())
    except (ValueError, SafetensorError):
        return False
    return True
