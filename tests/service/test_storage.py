"""Blobs and the database: whole or not there, and the same tables everywhere."""

import datetime
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec import AbstractFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from service.conftest import Postgres
from sqlalchemy import select

from antibody.errors import MachineError, UsageError
from antibody.service.storage.blobs import BlobStore, TooLargeError
from antibody.service.storage.database import Database
from antibody.service.storage.files import safe_name
from antibody.service.storage.store import Place, open_store
from antibody.service.storage.tables import Project


@pytest.fixture(params=["folder", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    url = str(tmp_path / "blobs") if request.param == "folder" else f"memory://{tmp_path.name}"
    return BlobStore(url, tmp_path / "spool")


def test_a_blob_is_named_by_its_content_and_kept_once(blobs: BlobStore, tmp_path: Path) -> None:
    first, again = (blobs.store(io.BytesIO(b"abc" * 10**6)) for _ in range(2))
    assert first == again
    assert first.size == 3 * 10**6
    assert blobs.names() == [first.sha256]
    assert b"".join(blobs.pieces(first.sha256)) == b"abc" * 10**6
    blobs.fetch(first.sha256, tmp_path / "x" / "copy")
    assert (tmp_path / "x" / "copy").read_bytes() == b"abc" * 10**6
    assert blobs.age(first.sha256) < 60
    blobs.remove(first.sha256)
    assert blobs.names() == []
    with pytest.raises(FileNotFoundError):
        list(blobs.pieces(first.sha256))


class Remembering(MemoryFileSystem):
    """Remembers listings, as those of object stores do."""

    find = AbstractFileSystem.find

    def ls(self, path: str, detail: bool = True, **_: Any) -> Any:
        path = self._strip_protocol(path)
        if path not in self.dircache:
            self.dircache[path] = super().ls(path)
        return self.dircache[path] if detail else [entry["name"] for entry in self.dircache[path]]

    def info(self, path: str, **_: Any) -> Any:
        known = self._ls_from_cache(self._strip_protocol(path))
        return known[0] if known else super().info(path)

    def invalidate_cache(self, path: str | None = None) -> None:
        self.dircache.clear()


def test_what_another_server_stored_again_is_not_taken_for_old(tmp_path: Path) -> None:
    mine, others = (BlobStore(f"memory://{tmp_path.name}", tmp_path / "spool") for _ in range(2))
    mine.filesystem = Remembering(use_listings_cache=True)
    sha256 = others.store(io.BytesIO(b"abc")).sha256
    path = others.filesystem.find(others.root)[0]
    others.filesystem.store[path].created = datetime.datetime.fromtimestamp(0, datetime.UTC)
    assert mine.ages()[sha256] > 1000
    others.store(io.BytesIO(b"abc"))
    assert not mine.remove_old(sha256, older_than=1000)
    assert mine.names() == [sha256]
    assert mine.ages()[sha256] < 1000
    others.remove(sha256)
    assert not mine.remove_old(sha256, older_than=-1)


def test_what_a_killed_process_left_is_cleaned(blobs: BlobStore) -> None:
    """A validating worker keeps rows in a folder of the spool."""
    (blobs.spool / "folder").mkdir()
    for name in ("folder/rows", "file"):
        (blobs.spool / name).write_text("x")
    blobs.clean_spool(older_than=60)
    assert len(list(blobs.spool.iterdir())) == 2
    blobs.clean_spool(older_than=-1)
    assert list(blobs.spool.iterdir()) == []


def test_what_breaks_off_leaves_nothing(blobs: BlobStore) -> None:
    def broken() -> Iterator[bytes]:
        yield b"abc"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        blobs.store_pieces(broken())
    with pytest.raises(TooLargeError):
        blobs.store(io.BytesIO(b"abcd"), limit=3)
    assert blobs.names() == []
    assert list(blobs.spool.iterdir()) == []


@pytest.mark.parametrize("name", ["../x", "", "A" * 64, "0" * 63, "0" * 64 + "/.."])
def test_only_a_hash_is_a_name(name: str, blobs: BlobStore) -> None:
    with pytest.raises(ValueError, match="no SHA-256"):
        list(blobs.pieces(name))


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a.jsonl", "a.jsonl"),
        ("/etc/passwd", "passwd"),
        ("..", "file"),
        ("", "file"),
        ("a\r\nb", "ab"),
        ("x" * 300, "x" * 200),
    ],
)
def test_names_of_files_are_made_safe(name: str, safe: str) -> None:
    assert safe_name(name) == safe


def test_migrations_give_the_tables_of_the_program(database_url: str, tmp_path: Path) -> None:
    place = Place(tmp_path, database_url, str(tmp_path / "blobs"))
    for _ in range(2):
        store = open_store(place)
        assert store.database.differences() == []
        store.database.close()


def test_a_transaction_is_whole_or_did_not_happen(database_url: str) -> None:
    database = Database(database_url)
    database.migrate()

    def add_and_fail() -> None:
        with database.writing() as session:
            session.add(Project(id="a", name="a", created_at=0.0))
            session.flush()
            raise ConnectionError

    with pytest.raises(ConnectionError):
        add_and_fail()
    with database.reading() as session:
        assert session.scalars(select(Project)).all() == []
    assert database.answers()
    database.close()


def test_urls_that_cannot_be_used(tmp_path: Path) -> None:
    for url in ("nonsense", "oracle://x/y"):
        with pytest.raises(UsageError, match="can be used"):
            Database(url)
    with pytest.raises(UsageError, match="nowhere://"):
        BlobStore("nowhere://x", tmp_path)
    silent = Database("postgresql://nobody@127.0.0.1:1/x")
    assert not silent.answers()
    with pytest.raises(MachineError, match="does not answer"):
        silent.migrate()


def test_the_tests_postgresql_does_not_hang_on_another_sessions_folders(
    postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert not postgres.folder.is_relative_to(tmp_path_factory.getbasetemp())
    assert postgres.folder.parent.stat().st_mode & 0o001, "PostgreSQL's user can go through it"
