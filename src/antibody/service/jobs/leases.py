"""Who works on a job. A lease ends by itself, so that the work of a worker that died goes to another.

A worker that lost its lease must not write any more. It asks after every step, and a lock on the job's directory,
which the system gives back when a process dies, keeps two processes of one machine apart even where clocks and pauses
mislead.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from antibody.service.jobs.stopping import LostLeaseError
from antibody.service.storage.database import Database, database_time
from antibody.service.storage.tables import Job
from antibody.service.wire.jobs import JobStatus


class Standing(NamedTuple):
    """What a worker finds when it looks at its job.

    Attributes:
        status: The job's; None where there is no such job.
        mine: Whether the lease is still the worker's.
    """

    status: str | None
    mine: bool


def claim(database: Database, worker: str, statuses: Sequence[JobStatus], seconds: float) -> str | None:
    """Leases the oldest job in one of the statuses that nobody works on and that need not wait, and returns its id."""
    with database.writing() as session:
        now = database_time(session)
        free = or_(Job.leased_until.is_(None), Job.leased_until < now)
        due = or_(Job.not_before.is_(None), Job.not_before < now)
        query = select(Job.id).where(Job.status.in_(statuses), free, due, Job.held.is_(False))
        query = query.order_by(Job.number).limit(1)
        job = session.scalar(query.with_for_update(skip_locked=True))
        if job is not None:
            session.execute(
                update(Job)
                .where(Job.id == job)
                .values(worker=worker, leased_until=now + seconds, attempts=Job.attempts + 1)
            )
        return job


def renew(database: Database, worker: str, job: str, seconds: float) -> bool:
    """Says that the worker is alive; False where the lease is another's by now, or nobody's.

    One that has run out goes on where nobody took it: a worker that was slow to say so has lost nothing.
    """
    with database.writing() as session:
        mine = (Job.id == job, Job.worker == worker)
        until = database_time(session) + seconds
        renewed = session.execute(update(Job).where(*mine).values(leased_until=until).returning(Job.id))
        return renewed.first() is not None


def release(session: Session, worker: str, job: str, *, blameless: bool = False) -> None:
    """Ends a lease. `blameless`: the worker went on well, so that the attempt does not count."""
    values = {"worker": None, "leased_until": None} | ({"attempts": 0} if blameless else {})
    session.execute(update(Job).where(Job.id == job, Job.worker == worker).values(**values))


def postpone(session: Session, worker: str, job: str, seconds: float) -> bool:
    """Lets others go first meanwhile; False where the lease is another's by now."""
    until = database_time(session) + seconds
    mine = (Job.id == job, Job.worker == worker)
    return session.execute(update(Job).where(*mine).values(not_before=until).returning(Job.id)).first() is not None


def release_all(database: Database, worker: str) -> list[str]:
    """Ends the leases of a worker that is known to be dead, and returns its jobs."""
    with database.writing() as session:
        query = update(Job).where(Job.worker == worker).values(worker=None, leased_until=None)
        return list(session.scalars(query.returning(Job.id)))


def look(database: Database, worker: str, job: str) -> Standing:
    """The job's status, and whether the worker may go on."""
    with database.reading() as session:
        row = session.execute(select(Job.status, Job.worker).where(Job.id == job)).first()
        return Standing(None, mine=False) if row is None else Standing(row.status, row.worker == worker)


def status_if_held(session: Session, worker: str, job: str) -> str | None:
    """The job's status; None where another has leased it by now, or nobody.

    In a transaction that writes: until its end the job stays the worker's, and in this status. A lease that has run out
    is held until another takes it.
    """
    query = select(Job.status).where(Job.id == job, Job.worker == worker)
    return session.scalar(query.with_for_update())


@contextmanager
def writing_if_held(database: Database, worker: str, job: str) -> Iterator[Session]:
    """A transaction of the worker that holds the job's lease.

    Raises:
        LostLeaseError: It does not hold it any more.
    """
    with database.writing() as session:
        if status_if_held(session, worker, job) is None:
            raise LostLeaseError
        yield session


@contextmanager
def alone_in(folder: Path) -> Iterator[bool]:
    """Holds a lock on a directory meanwhile; gives False where another process of this machine holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(handle)
