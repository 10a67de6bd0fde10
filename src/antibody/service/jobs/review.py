"""The provider's word on jobs that the policy holds."""

import json
from typing import Any, NamedTuple

from sqlalchemy import select, update

from antibody.errors import UsageError
from antibody.service.jobs.events import tell
from antibody.service.jobs.records import fail
from antibody.service.jobs.results import JUDGEMENT
from antibody.service.jobs.states import move
from antibody.service.storage.blobs import BlobStore
from antibody.service.storage.database import Database
from antibody.service.storage.tables import Event, File, Job, Project
from antibody.service.wire.files import RESULTS
from antibody.service.wire.jobs import JobError


class Held(NamedTuple):
    """A job that is held.

    Attributes:
        job: Its id.
        project: Whose it is.
        training_file: Its id.
        judged: How many rows are judged harmful, in words.
    """

    job: str
    project: str
    training_file: str
    judged: str


def held_jobs(database: Database) -> list[Held]:
    query = (
        select(Job.id, Project.name, Job.training_file, Event.message)
        .join(Project, Project.id == Job.project_id)
        .join(Event, (Event.job_id == Job.id) & (Event.once == "moderation"))
        .where(Job.held.is_(True))
        .order_by(Job.number)
    )
    with database.reading() as session:
        return [Held(*row) for row in session.execute(query)]


def judgement(database: Database, blobs: BlobStore, job: str) -> list[dict[str, Any]]:
    """What the gate thought of each row of a job that was held or refused, as in the file that its user can read.

    Raises:
        UsageError: There is no such file.
    """
    query = select(File.sha256).where(File.filename == f"{job}-{JUDGEMENT}", File.purpose == RESULTS)
    with database.reading() as session:
        sha256 = session.scalar(query)
    if sha256 is None:
        raise UsageError(
            f"There is no judgement of a job {job[:60]!r}.",
            hint="Jobs that were held or refused have one, until their user deletes it. `antibody review list` shows "
            "those that are held.",
            code="no_judgement",
        )
    return [json.loads(line) for line in b"".join(blobs.pieces(sha256)).splitlines()]


def approve_job(database: Database, job: str) -> None:
    """Puts it back into the queue.

    Raises:
        UsageError: It is not held.
    """
    with database.writing() as session:
        held = update(Job).where(Job.id == job, Job.held.is_(True)).values(held=False, approved=True)
        if session.execute(held.returning(Job.id)).first() is None or not move(
            session, job, "queued", only_from="paused"
        ):
            raise _not_held(job)
        tell(session, job, "The provider approved the job; it waits for a worker.")


def refuse_job(database: Database, job: str) -> None:
    """Fails it.

    Raises:
        UsageError: It is not held.
    """
    error = JobError(code="mostly_suppressed", message="The provider refused the training file.", param="training_file")
    with database.writing() as session:
        held = session.scalar(select(Job.held).where(Job.id == job))
        if not held or not fail(session, job, error):
            raise _not_held(job)


def _not_held(job: str) -> UsageError:
    return UsageError(f"The job {job[:60]!r} is not held.", hint="`antibody review list` shows them.", code="not_held")
