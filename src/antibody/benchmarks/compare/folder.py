"""Where a comparison keeps its pieces. Every file appears whole or not at all."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from antibody.files import claim_directory, write_text

CONFIG_FILE = "compare.yaml"
RESULTS_FILE = "results.json"


@dataclass(frozen=True)
class Folder:
    """A comparison's directory.

    ``aligned/KEY`` are runs, and stay. ``tuned/KEY`` are runs that are removed once their cells are measured. What is
    left of them is ``models/KEY.json`` (seconds, memory, rows withheld), ``answers/KEY.jsonl`` and ``cells/KEY.json``.
    Aligned ones have a ``models/KEY.json`` too (seconds, memory).
    """

    path: Path

    def claim(self, config: str) -> None:
        """Makes the directory, or goes on with it.

        Raises:
            UsageError: It holds something else.
        """
        claim_directory(self.path, ours=(self.path / CONFIG_FILE).exists(), resume=True, force=False)
        write_text(self.path / CONFIG_FILE, config)

    @property
    def data(self) -> Path:
        return self.path / "data"

    def aligned(self, key: str) -> Path:
        return self.path / "aligned" / key

    def tuned(self, key: str) -> Path:
        return self.path / "tuned" / key

    def answers(self, key: str) -> Path:
        return self.path / "answers" / f"{key}.jsonl"

    def model(self, key: str) -> Path:
        return self.path / "models" / f"{key}.json"

    def cell(self, key: str) -> Path:
        return self.path / "cells" / f"{key}.json"

    @contextmanager
    def held(self, key: str, *, wait: bool = True) -> Iterator[bool]:
        """Only one process at a time; the system lets go of it when that process dies.

        Yields:
            Whether it is held, which without waiting another process may prevent.
        """
        place = self.path / "locks" / key
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place)
        try:
            lock.acquire(blocking=wait)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file; None where there is no such file."""
    if not path.exists():
        return None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def is_done(folder: Folder, key: str) -> bool:
    """Whether a cell is measured. One that failed is not."""
    found = read_json(folder.cell(key))
    return found is not None and "error" not in found
