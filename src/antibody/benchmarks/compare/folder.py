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

from antibody.errors import UsageError
from antibody.files import claim_directory, write_text

CONFIG_FILE = "compare.yaml"
RESULTS_FILE = "results.json"
# What results.json is called once a comparison goes on from it.
PUBLISHED_FILE = "published.json"


@dataclass(frozen=True)
class Folder:
    """A comparison's directory.

    ``aligned/KEY`` are runs, and stay. ``tuned/KEY`` are runs that are removed once their cells are measured. What is
    left of them is ``models/KEY.json`` (seconds, memory, device, rows withheld), ``answers/KEY.jsonl`` and
    ``cells/KEY.json``. Aligned ones have a ``models/KEY.json`` too (seconds, memory). ``published.json`` is somebody's
    results.json.

    Attributes:
        path: The directory.
        begun_at: When this process opened it. What failed earlier is tried again, what failed since is not.
    """

    path: Path
    begun_at: float = field(default_factory=time.time)

    @cached_property
    def published(self) -> dict[str, Any]:
        """What somebody else's results.json holds, where this comparison began or is to begin with it; else nothing."""
        mine = (self.path / CONFIG_FILE).exists()
        for name in (PUBLISHED_FILE,) if mine else (PUBLISHED_FILE, RESULTS_FILE):
            with suppress(FileNotFoundError, ValueError):
                content = json.loads((self.path / name).read_text(encoding="utf-8"))
                if isinstance(content, dict) and content.get("kind") == "comparison":
                    return content
        return {}

    @cached_property
    def published_cells(self) -> dict[str, dict[str, Any]]:
        """Its measured cells, by name."""
        cells = self.published.get("cells", [])
        return {cell["key"]: cell for cell in cells if "key" in cell and cell.get("status") == "done"}

    def claim(self, config: str) -> None:
        """Makes the directory, or goes on with it, or with a results.json that lies there alone.

        Raises:
            UsageError: It holds something else, or an earlier version wrote that results.json.
        """
        names = {entry.name for entry in self.path.iterdir()} if self.path.exists() else set()
        # Or the file that another process is about to give this name.
        ours = not names or any(name == CONFIG_FILE or name.startswith(f".{CONFIG_FILE}.") for name in names)
        published = names in ({RESULTS_FILE}, {PUBLISHED_FILE}) and bool(self.published)
        claim_directory(self.path, ours=ours or published, resume=True, force=False)
        if not ours:
            self._take_over()
        write_text(self.path / CONFIG_FILE, config)

    def _take_over(self) -> None:
        if not self.published_cells:
            raise UsageError(
                f"No cell of the results in {self.path} can be gone on with.",
                hint="None is done, or an earlier version wrote them without names. Choose another directory.",
                code="not_a_run",
            )
        with suppress(FileNotFoundError):
            # Another process may have done so.
            if not (self.path / PUBLISHED_FILE).exists():
                (self.path / RESULTS_FILE).rename(self.path / PUBLISHED_FILE)

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

    def found(self, key: str) -> dict[str, Any] | None:
        """What a cell's file holds, else what was published of it; None where there is neither."""
        return read_json(self.cell(key)) or self.published_cells.get(key)

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
    found = folder.found(key)
    return found is not None and "error" not in found
