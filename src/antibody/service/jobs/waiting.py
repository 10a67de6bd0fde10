"""Jobs for which there is no room, or no base model any more: they are told so and wait, and others go first."""

from sqlalchemy.orm import Session

from antibody.service.jobs.events import tell
from antibody.service.jobs.leases import postpone
from antibody.service.jobs.records import fail
from antibody.service.jobs.room import SECONDS, Memory
from antibody.service.jobs.states import move
from antibody.service.storage.database import Database, database_time
from antibody.service.storage.lacking import Lacking
from antibody.service.storage.tables import Job
from antibody.service.wire.jobs import JobError

GIGABYTE = 2**30
# Seconds in which a job that goes on waiting says so once.
QUIET = 600
LACKS: dict[Lacking, str] = {
    "disk": "The service's disk is full. The job waits, and goes on by itself once there is space.",
    "blobs": "The service's storage does not answer. The job waits, and goes on by itself once it does.",
}


def wait_for_memory(database: Database, worker: str, job: Job, memory: Memory) -> None:
    """Fails a job that can never have what it needs; any other waits."""
    needed = f"{memory.needed / GIGABYTE:.1f} GB of memory"
    with database.writing() as session:
        if memory.needed > memory.total:
            message = f"{job.model} cannot be trained here: that takes about {needed}, and the machine has "
            message += f"{memory.total / GIGABYTE:.1f} GB."
            fail(session, job.id, JobError(code="model_too_large", message=message, param="model"), worker=worker)
            return
        message = f"Training takes about {needed}, and {memory.free / GIGABYTE:.1f} GB are free. "
        message += "The job waits; smaller ones go first."
        _wait(session, worker, job.id, message, once="waits-for-memory")


def wait_for(lacking: Lacking, database: Database, worker: str, job: str) -> None:
    """Puts a job back. It goes on from its last checkpoint."""
    with database.writing() as session:
        move(session, job, "queued", worker=worker, only_from="running")
        often = int(database_time(session) // QUIET)
        _wait(session, worker, job, LACKS[lacking], once=f"waits-for-{lacking}-{often}")


def wait_for_model(database: Database, worker: str, job: Job) -> None:
    """Puts a job back: its base model was renamed or left out, which may be an oversight. Its user can cancel it."""
    with database.writing() as session:
        move(session, job.id, "queued", worker=worker, only_from="running")
        message = (
            f"The service does not offer {job.model} at present. The job waits until it does; it can be cancelled."
        )
        _wait(session, worker, job.id, message, once="waits-for-model")


def _wait(session: Session, worker: str, job: str, message: str, *, once: str) -> None:
    """Only the worker whose lease it is says so."""
    if postpone(session, worker, job, SECONDS):
        tell(session, job, message, once=once, level="warn")
