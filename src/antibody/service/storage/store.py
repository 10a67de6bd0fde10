"""The database and the blobs, opened together."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from antibody.service.policy import Retention
from antibody.service.storage.blobs import BlobStore
from antibody.service.storage.database import Database, database_time
from antibody.service.storage.guard import guard_for
from antibody.service.storage.tables import File, Job, Upload, UploadPart

# Seconds for which a blob may be named by nothing: between being stored and being entered in a table.
GRACE = 3600.0
DAY = 86_400.0
AUDIT = "audit.jsonl"
KEPT = Retention()


class Place(NamedTuple):
    """Where the service keeps things. Passed to its other processes.

    Attributes:
        folder: Runs of jobs, and what has no other place.
        database: URL.
        blobs: Folder or URL.
    """

    folder: Path
    database: str
    blobs: str

    @property
    def runs(self) -> Path:
        return self.folder / "jobs"


@dataclass(frozen=True)
class Store:
    place: Place
    database: Database
    blobs: BlobStore

    def sweep(self, retention: Retention = KEPT, *, grace: float = GRACE) -> int:
        """Removes what expired, then the blobs that nothing names, and returns how many of these."""
        with self.database.writing() as session:
            _forget_expired(session, time.time())
        self._remove_runs(retention)
        old = [name for name in self.blobs.names() if self.blobs.age(name) > grace]
        with self.database.reading() as session:
            named = set(session.scalars(select(File.sha256))) | set(session.scalars(select(UploadPart.sha256)))
            unfinished = select(Job.training_sha256, Job.validation_sha256).where(Job.finished_at.is_(None))
            named |= {name for row in session.execute(unfinished) for name in row if name}
        # One that was stored anew meanwhile is named any moment.
        removed = [self.blobs.remove_old(name, older_than=grace) for name in old if name not in named]
        self.blobs.clean_spool(grace)
        return sum(removed)

    def _remove_runs(self, retention: Retention) -> None:
        for status, days in (("failed", retention.failed_days), ("cancelled", retention.cancelled_days)):
            if days is None:
                continue
            with self.database.reading() as session:
                now = database_time(session)
                unleased = or_(Job.leased_until.is_(None), Job.leased_until < now)
                ended = Job.finished_at < now - days * DAY
                jobs = list(session.scalars(select(Job.id).where(Job.status == status, ended, unleased)))
            for job in jobs:
                _remove_but_audit(self.place.runs / job)


def _remove_but_audit(folder: Path) -> None:
    """Broken off, it goes on the next time: the audit is moved out first."""
    run = folder / "run"
    if not run.exists():
        return
    if (run / AUDIT).exists():
        (run / AUDIT).replace(folder / AUDIT)
    shutil.rmtree(run)


def _forget_expired(session: Session, now: float) -> None:
    """What expired cannot be read or deleted any more, so that nobody else would."""
    expired = select(Upload.id).where(Upload.status == "pending", Upload.expires_at < now)
    session.execute(delete(UploadPart).where(UploadPart.upload_id.in_(expired)))
    session.execute(delete(File).where(File.expires_at < now))


def make_private(folder: Path) -> None:
    """Makes a folder that is its owner's alone: it holds what users upload. One that is there stays as it is."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def open_store(place: Place) -> Store:
    """Opens both, and brings the tables up to date.

    Raises:
        UsageError: One of the URLs cannot be used.
        MachineError: The database does not answer.
    """
    make_private(place.folder)
    place.runs.mkdir(exist_ok=True)
    database = Database(place.database)
    database.migrate()
    guard = guard_for(database, place.folder / "blobs.lock")
    return Store(place, database, BlobStore(place.blobs, place.folder / "spool", guard))
