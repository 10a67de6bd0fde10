"""The database and the blobs, opened together."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from antibody.service.policy import Retention
from antibody.service.storage.blobs import BlobStore
from antibody.service.storage.database import Database
from antibody.service.storage.guard import guard_for
from antibody.service.storage.runs import sweep_runs
from antibody.service.storage.tables import File, Job, Upload, UploadPart

# Seconds for which a blob may be named by nothing: between being stored and being entered in a table.
GRACE = 3600.0
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
            _forget_expired(session, time.time(), grace)
        sweep_runs(self.database, self.place.runs, retention)
        old = [name for name, age in self.blobs.ages().items() if age > grace]
        with self.database.reading() as session:
            named = set(session.scalars(select(File.sha256))) | set(session.scalars(select(UploadPart.sha256)))
            unfinished = select(Job.training_sha256, Job.validation_sha256).where(Job.finished_at.is_(None))
            named |= {name for row in session.execute(unfinished) for name in row if name}
        # One that was stored anew meanwhile is named any moment.
        removed = [self.blobs.remove_old(name, older_than=grace) for name in old if name not in named]
        self.blobs.clean_spool(grace)
        return sum(removed)


def _forget_expired(session: Session, now: float, grace: float) -> None:
    """What cannot be read any more: it expired or was deleted. Files are counted while their content may be there."""
    pending = select(Upload.id).where(Upload.status == "pending", Upload.expires_at > now)
    of_ended = (UploadPart.upload_id.not_in(pending), UploadPart.created_at < now - grace)
    session.execute(delete(UploadPart).where(*of_ended))
    session.execute(delete(File).where(File.expires_at < now - grace))


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
