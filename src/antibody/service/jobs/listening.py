"""What a job's user, and its lease, say to the one who works on it."""

import time
from typing import NamedTuple

from sqlalchemy.exc import DBAPIError

from antibody.service.jobs.leases import look
from antibody.service.jobs.stopping import LostLeaseError, StoppedError
from antibody.service.storage.database import Database


class Heard(NamedTuple):
    """Whether to go on.

    Attributes:
        lost: The lease is another's, or must be taken to be.
        stop: The job is no longer running: its user or the server wants it to stop.
    """

    lost: bool = False
    stop: bool = False


class Listener:
    """Looks at a job in the database. One that does not answer is trusted to say nothing new for half a lease.

    Args:
        database: The service's.
        worker: Who holds the lease.
        job: Its id.
        lease_seconds: How long that is.
    """

    def __init__(self, database: Database, worker: str, job: str, lease_seconds: float) -> None:
        self.database = database
        self.worker = worker
        self.job = job
        self.lease_seconds = lease_seconds
        self.heard: float | None = None

    def listen(self) -> Heard:
        try:
            standing = look(self.database, self.worker, self.job)
        except DBAPIError:
            # Nobody else can lease the job before our lease ends.
            if self.heard is None:
                self.heard = time.monotonic()
            return Heard(lost=time.monotonic() - self.heard > self.lease_seconds / 2)
        self.heard = time.monotonic()
        return Heard(lost=not standing.mine, stop=standing.status != "running")

    def raise_if_stopped(self) -> None:
        """For what one process does alone.

        Raises:
            StoppedError: The job is no longer to be run by this worker.
        """
        heard = self.listen()
        if heard.lost:
            raise LostLeaseError
        if heard.stop:
            raise StoppedError
