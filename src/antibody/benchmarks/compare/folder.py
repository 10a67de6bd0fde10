"""Where a comparison keeps its pieces. Every file appears whole or not at all."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from antibody.files import claim_directory, write_json, write_text

CONFIG_FILE = "compare.yaml"
RESULTS_FILE = "results.json"

# What results.json says of a cell besides its own content.
OF_RESULTS = ("key", "status", "grid", "method", "attack", "ratio", "task", "variant", "seed")


@dataclass(frozen=True)
class Folder:
    """A comparison's directory.

    ``aligned/KEY`` are runs, and stay. ``tuned/KEY`` are runs that are removed once their cells are measured. What is
    left of them is ``models/KEY.json`` (seconds, memory, rows withheld), ``answers/KEY.jsonl`` and ``cells/KEY.json``.
    Aligned ones have a ``models/KEY.json`` too (seconds, memory).

    Attributes:
        path: The directory.
        begun_at: When this process opened it. What failed earlier is tried again, what failed since is not.
    """

    path: Path
    begun_at: float = field(default_factory=time.time)

    @cached_property
    def published(self) -> dict[str, dict[str, Any]]:
        """Measured cells by name where results.json, as somebody has published it, is all there is."""
        results = self.path / RESULTS_FILE
        if not results.exists() or (self.path / CONFIG_FILE).exists():
            return {}
        with suppress(ValueError):
            content = json.loads(results.read_text(encoding="utf-8"))
            if isinstance(content, dict) and content.get("kind") == "comparison":
                done = [cell for cell in content["cells"] if cell["status"] == "done" and "key" in cell]
                return {cell["key"]: {k: v for k, v in cell.items() if k not in OF_RESULTS} for cell in done}
        return {}

    def claim(self, config: str) -> None:
        """Makes the directory, or goes on with it or with the cells of a results.json that lies there alone.

        Raises:
            UsageError: It holds something else.
        """
        names = [entry.name for entry in self.path.iterdir()] if self.path.exists() else []
        # Or the file that another process is about to give this name.
        ours = not names or any(name == CONFIG_FILE or name.startswith(f".{CONFIG_FILE}.") for name in names)
        claim_directory(self.path, ours=ours or bool(self.published), resume=True, force=False)
        for key, content in self.published.items():
            write_json(self.cell(key), content)
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

    def stage_error(self, key: str) -> Path:
        return self.path / "models" / f"{key}.error.json"

    def cell(self, key: str) -> Path:
        return self.path / "cells" / f"{key}.json"

    def measured(self, key: str) -> dict[str, Any] | None:
        """What a cell's file holds, or what was published of it; None where there is neither."""
        return read_json(self.cell(key)) or self.published.get(key)

    def is_settled(self, key: str) -> bool:
        """Whether a cell is measured, or failed since this process began, in this or in another."""
        return is_done(self, key) or self.failed_lately(self.cell(key)) is not None

    def failed_lately(self, file: Path) -> dict[str, Any] | None:
        """The error that was written into a file since this process began; None where there is none."""
        found = read_json(file)
        if found is None or "error" not in found or file.stat().st_mtime < self.begun_at:
            return None
        error: dict[str, Any] = found["error"]
        return error

    @contextmanager
    def held(self, key: str) -> Iterator[bool]:
        """One process at a time; the system lets go of it when that process dies.

        Yields:
            Whether it is held by this process. It is not where another holds it.
        """
        place = self.path / "locks" / key
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place)
        with suppress(Timeout):
            lock.acquire(blocking=False)
        try:
            yield lock.is_locked
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
    found = folder.measured(key)
    return found is not None and "error" not in found
