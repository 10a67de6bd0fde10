"""Projects and their keys. A key is shown once; what is kept is its hash.

A key is ``sk-antibody-ID-SECRET``. The secret has 238 random bits, so that a plain hash of it cannot be guessed from,
and a slow one would only slow every request.
"""

import hashlib
import hmac
import re
import time
from collections.abc import Callable
from typing import NamedTuple

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from antibody.errors import UsageError
from antibody.service.storage.database import Database
from antibody.service.storage.ids import new_id, random_text
from antibody.service.storage.tables import Key, Project

KEY = re.compile(r"sk-antibody-([A-Za-z0-9]{12})-([A-Za-z0-9]{40})")
PROJECT_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
# Compared with where there is no such key, so that this takes as long.
NO_HASH = hashlib.sha256(b"no key").hexdigest()
# Seconds for which a server goes by what it last read of a key.
REMEMBERED = 5.0
MOST_REMEMBERED = 10_000


class Caller(NamedTuple):
    """Who asks."""

    project: str
    project_name: str
    key: str


class NewKey(NamedTuple):
    """A key that was made.

    Attributes:
        id: By which it is listed and revoked.
        secret: The whole key, for its user alone.
    """

    id: str
    secret: str


class KeyRow(NamedTuple):
    """A key as it is listed."""

    id: str
    project: str
    name: str
    created_at: float
    revoked_at: float | None


def check_project(name: str) -> None:
    """Before anything is made for it.

    Raises:
        UsageError: It is no name of a project.
    """
    if not PROJECT_NAME.fullmatch(name):
        raise UsageError(
            f"{name[:60]!r} is no name of a project.",
            hint="Use up to 40 small letters, digits and dashes.",
            code="bad_project",
        )


def create_key(database: Database, *, project: str, name: str) -> NewKey:
    """Makes a key, and its project if there is none of that name.

    Raises:
        UsageError: The project's name is not one.
    """
    check_project(project)
    key_id, secret = random_text(12), random_text(40)
    with database.writing() as session:
        row = session.scalar(select(Project).where(Project.name == project))
        if row is None:
            row = Project(id=new_id("proj"), name=project, created_at=time.time())
            session.add(row)
            session.flush()
        session.add(
            Key(id=key_id, project_id=row.id, name=name, hash=_hash(secret), created_at=time.time(), revoked_at=None)
        )
    return NewKey(key_id, f"sk-antibody-{key_id}-{secret}")


def lock_project(session: Session, project: str) -> None:
    """Until the transaction's end nobody else does, so that what is counted of a project stays so.

    In SQLite a transaction that writes is alone anyway.
    """
    session.execute(select(Project.id).where(Project.id == project).with_for_update())


def list_keys(database: Database) -> list[KeyRow]:
    query = select(Key.id, Project.name, Key.name, Key.created_at, Key.revoked_at).join(
        Project, Project.id == Key.project_id
    )
    with database.reading() as session:
        return [KeyRow(*row) for row in session.execute(query.order_by(Key.created_at))]


def revoke_key(database: Database, key_id: str) -> None:
    """Servers that know the key look at it again within `REMEMBERED` seconds; then it opens nothing.

    Raises:
        UsageError: There is no such key.
    """
    with database.writing() as session:
        changed = session.execute(
            update(Key)
            .where(Key.id == key_id, Key.revoked_at.is_(None))
            .values(revoked_at=time.time())
            .returning(Key.id)
        )
        if changed.first() is None:
            raise UsageError(
                f"There is no valid key {key_id[:60]!r}.", hint="`antibody keys list` shows them.", code="no_key"
            )


class KeyRing:
    """Whose keys they are, by the database, which is asked about the same valid key once in a few seconds.

    Args:
        database: Where the keys are.
        clock: Seconds.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self.database = database
        self.clock = clock
        self.known: dict[str, tuple[_Kept, float]] = {}

    def remembered(self, given: str) -> Caller | None:
        """Whose key it is, without asking the database; None where that must be asked."""
        key_id, secret = _parts(given)
        kept, until = self.known.get(key_id, (None, 0.0))
        return None if self.clock() >= until else _opened(kept, secret)

    def find(self, given: str) -> Caller | None:
        """Whose key it is, by the database; None where it is no valid one. Wrong ones take as long.

        What has not even the form of a key is not asked about.
        """
        key_id, secret = _parts(given)
        if not key_id:
            return None
        kept = _kept(self.database, key_id)
        caller = _opened(kept, secret)
        if caller is None or kept is None:
            return None
        if len(self.known) >= MOST_REMEMBERED:
            self.known.clear()
        self.known[key_id] = (kept, self.clock() + REMEMBERED)
        return caller


class _Kept(NamedTuple):
    """What the database has of a key."""

    caller: Caller
    hash: str
    revoked: bool


def _kept(database: Database, key_id: str) -> _Kept | None:
    query = select(Key.hash, Key.revoked_at, Project.id, Project.name).join(Project, Project.id == Key.project_id)
    with database.reading() as session:
        row = session.execute(query.where(Key.id == key_id)).first()
    return None if row is None else _Kept(Caller(row.id, row.name, key_id), row.hash, row.revoked_at is not None)


def _opened(kept: _Kept | None, secret: str) -> Caller | None:
    same = hmac.compare_digest(kept.hash if kept else NO_HASH, _hash(secret))
    return kept.caller if kept is not None and same and not kept.revoked else None


def _parts(given: str) -> tuple[str, str]:
    """A key's id and its secret; of what is no key, none."""
    match = KEY.fullmatch(given)
    return (match[1], match[2]) if match else ("", "")


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
