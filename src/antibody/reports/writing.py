"""Files appear whole: written beside their place, then renamed."""

import os
from pathlib import Path


def write_text(path: Path, text: str) -> Path:
    """Writes a text file so that a reader sees the old one or the new one, never half of either."""
    # The process id keeps two writers of the same file apart.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
