"""Nobody stores a blob while it is removed: who has found that nothing names it may be late by a moment."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from sqlalchemy import text

from antibody.service.storage.database import Database


class Guard(Protocol):
    """Holds a blob's name meanwhile. Those that store may hold it together; who removes holds it alone."""

    def __call__(self, sha256: str, *, alone: bool) -> AbstractContextManager[None]: ...


def guard_for(database: Database, file: Path) -> Guard:
    """Servers that share a SQLite file are on one machine, where the system locks; any others meet in PostgreSQL.

    Args:
        database: The service's.
        file: To be locked, with SQLite.
    """

    @contextmanager
    def by_file(sha256: str, *, alone: bool) -> Iterator[None]:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            yield
        finally:
            os.close(handle)

    @contextmanager
    def by_database(sha256: str, *, alone: bool) -> Iterator[None]:
        function = "pg_advisory_xact_lock" if alone else "pg_advisory_xact_lock_shared"
        with database.reading() as session:
            # 60 bits of the name. Ended with the transaction, even if this process is killed.
            session.execute(text(f"SELECT {function}(:key)"), {"key": int(sha256[:15], 16)})
            yield

    return by_file if database.is_sqlite else by_database
