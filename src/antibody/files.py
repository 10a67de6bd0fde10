"""Files that appear whole or not at all, and their fingerprints."""

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from antibody.errors import UsageError


def cache_folder() -> Path:
    """``$ANTIBODY_CACHE``, else ``$XDG_CACHE_HOME/antibody``, else ``~/.cache/antibody``."""
    if "ANTIBODY_CACHE" in os.environ:
        return Path(os.environ["ANTIBODY_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "antibody"


def write_text(path: Path, text: str) -> None:
    """Writes a file by temporary file and rename, so that a reader or a crash never meets half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def to_json(content: object, *, indent: int | None = None) -> str:
    """JSON as every program reads it: a missing judgement (NaN) and an infinity become ``null``."""
    return json.dumps(_finite(content), indent=indent, ensure_ascii=False, allow_nan=False, default=_plain)


def write_json(path: Path, content: object) -> None:
    write_text(path, to_json(content, indent=2) + "\n")


def write_jsonl(path: Path, rows: Iterable[object]) -> None:
    write_text(path, "".join(to_json(row) + "\n" for row in rows))


def claim_directory(path: Path, *, ours: bool, resume: bool, force: bool) -> None:
    """Leaves a directory that may be written to: a new one, one to go on with, or none where the old one was removed.

    Args:
        path: The directory.
        ours: Whether what is in it was made by the same command.
        resume: Go on with it.
        force: Remove it.

    Raises:
        UsageError: There is something in it that is not ours, or neither option was given.
    """
    if not path.exists() or not any(path.iterdir()):
        return
    if not ours:
        raise UsageError(
            f"{path} holds something else, so nothing in it is touched.", hint="Choose another.", code="not_a_run"
        )
    if force:
        shutil.rmtree(path)
    elif not resume:
        raise UsageError(
            f"{path} already exists.", hint="Use --resume to continue it or --force to replace it.", code="run_exists"
        )


def refuse_existing(path: Path, *, force: bool, hint: str = "Use --force to replace it.") -> None:
    """Called before work whose result is to be written to a file.

    Args:
        path: The file.
        force: It may be replaced.
        hint: What to do where it may not.

    Raises:
        UsageError: ``file_exists``, where it exists and may not be replaced, or is no file.
    """
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is no file.", hint="Name one; --json prints the result.", code="file_exists")
    if path.exists() and not force:
        raise UsageError(f"{path} already exists.", hint=hint, code="file_exists")


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(content: object) -> str:
    """The SHA-256 of a value's representation, for data that is not a file."""
    return hashlib.sha256(repr(content).encode()).hexdigest()


def _plain(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
