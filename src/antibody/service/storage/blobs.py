"""Contents of files, named by their SHA-256: on a local folder, or at any URL that `fsspec` knows.

A blob is whole or is not there. It is never changed, and removed only when nothing names it any more.
"""

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import fsspec
from fsspec.implementations.local import LocalFileSystem

from antibody.errors import UsageError
from antibody.service.storage.guard import Guard

CHUNK = 2**20
NAME = re.compile(r"[0-9a-f]{64}")


class TooLargeError(Exception):
    """More came than was allowed."""


class Stored(NamedTuple):
    """A blob's name and size in bytes."""

    sha256: str
    size: int


class BlobStore:
    """Blobs at one place.

    Args:
        url: A folder, or a URL such as ``s3://bucket/prefix``.
        spool: A local folder where contents are gathered before they are stored; on the same disk as a local store.
        guard: Keeps those who store a blob and who removes it apart. None where nobody removes any meanwhile.

    Raises:
        UsageError: `fsspec` does not know such a URL, or lacks a package for it.
    """

    def __init__(self, url: str, spool: Path, guard: Guard | None = None) -> None:
        try:
            self.filesystem, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise UsageError(
                f"Blobs cannot be kept at {url.partition('://')[0]}://: {error}",
                hint="Give a folder, or install the package that fsspec needs for this kind of URL.",
                code="bad_blobs",
            ) from error
        self.root = root.rstrip("/")
        self.spool = spool
        self.guard = guard
        self.local = isinstance(self.filesystem, LocalFileSystem)
        spool.mkdir(parents=True, exist_ok=True)
        self.filesystem.makedirs(self.root, exist_ok=True)

    def store(self, source: BinaryIO, *, limit: int | None = None) -> Stored:
        """Stores what can be read from `source`.

        Raises:
            TooLargeError: It has more than `limit` bytes; nothing is kept.
            OSError: The place is full or gone; nothing is kept.
        """
        return self.store_pieces(iter(lambda: source.read(CHUNK), b""), limit=limit)

    def store_pieces(self, pieces: Iterable[bytes], *, limit: int | None = None) -> Stored:
        """As `store`, from pieces in order."""
        handle, name = tempfile.mkstemp(dir=self.spool)
        temporary = Path(name)
        try:
            digest, size = hashlib.sha256(), 0
            with os.fdopen(handle, "wb") as file:
                for piece in pieces:
                    size += len(piece)
                    if limit is not None and size > limit:
                        raise TooLargeError
                    digest.update(piece)
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            with self._guarded(digest.hexdigest(), alone=False):
                self._keep(temporary, digest.hexdigest())
        finally:
            temporary.unlink(missing_ok=True)
        return Stored(digest.hexdigest(), size)

    def pieces(self, sha256: str) -> Iterator[bytes]:
        """A blob's content.

        Raises:
            FileNotFoundError: There is none of that name.
        """
        with self.filesystem.open(self._path(sha256), "rb") as file:
            while piece := file.read(CHUNK):
                yield piece

    def fetch(self, sha256: str, target: Path) -> None:
        """Copies a blob to a local file, whole or not at all."""
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}")
        try:
            with temporary.open("wb") as file:
                for piece in self.pieces(sha256):
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def names(self) -> list[str]:
        """Every blob."""
        return list(self.ages())

    def ages(self) -> dict[str, float]:
        """Every blob, and the seconds since it was last stored."""
        self._look_anew()
        found = self.filesystem.find(self.root, detail=True)
        return {name: _age(entry) for path, entry in found.items() if NAME.fullmatch(name := path.rpartition("/")[2])}

    def age(self, sha256: str) -> float:
        """Seconds since a blob was last stored.

        Raises:
            FileNotFoundError: There is none of that name.
        """
        self._look_anew()
        return _age(self.filesystem.info(self._path(sha256)))

    def remove(self, sha256: str) -> None:
        self.filesystem.rm_file(self._path(sha256))

    def remove_old(self, sha256: str, *, older_than: float) -> bool:
        """Removes a blob, unless it was stored again in the last seconds, or another server did. Says whether."""
        with self._guarded(sha256, alone=True), contextlib.suppress(FileNotFoundError):
            if self.age(sha256) > older_than:
                self.remove(sha256)
                return True
        return False

    def clean_spool(self, older_than: float) -> None:
        """Removes what a process that was killed left there, `older_than` seconds ago."""
        for path in self.spool.iterdir():
            # Others may be finishing theirs meanwhile.
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime <= older_than:
                    continue
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()

    def answers(self) -> bool:
        """Whether the place can be reached."""
        self._look_anew()
        try:
            return bool(self.filesystem.exists(self.root))
        except OSError:
            return False

    def _look_anew(self) -> None:
        """Other servers store and remove, of which the listings that a file system remembers know nothing.

        Not by the option ``use_listings_cache``: some take any option they do not know for one of their connection.
        """
        self.filesystem.invalidate_cache()

    def _guarded(self, sha256: str, *, alone: bool) -> AbstractContextManager[None]:
        return contextlib.nullcontext() if self.guard is None else self.guard(sha256, alone=alone)

    def _keep(self, temporary: Path, sha256: str) -> None:
        path = self._path(sha256)
        if not self.local:
            # Stores of objects show one once it is whole. Stored again, it is as new: see `sweep`.
            self.filesystem.put_file(str(temporary), path)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(target)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _path(self, sha256: str) -> str:
        if not NAME.fullmatch(sha256):
            raise ValueError(f"{sha256!r} is no SHA-256")
        return f"{self.root}/{sha256[:2]}/{sha256}"


def _age(entry: dict[str, object]) -> float:
    """Seconds since a file was changed. 0 where the place does not say, so that it is never taken for old."""
    for name in ("mtime", "LastModified", "last_modified", "updated", "created"):
        changed = entry.get(name)
        if isinstance(changed, int | float):
            return time.time() - changed
        if hasattr(changed, "timestamp"):
            return time.time() - float(changed.timestamp())
    return 0.0
