"""The provider's word on jobs that the policy holds."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import select, update

from antibody.errors import UsageError
from antibody.service.jobs.events import tell
from antibody.service.jobs.records import fail
from antibody.service.jobs.states import move
from antibody.service.storage.database import Database
from antibody.service.storage.runs import AUDIT
from antibody.service.storage.tables import Event, Job, Project
from antibody.service.wire.jobs import JobError

# Of each row, without its text.
JUDGED = ("line", "id", "withheld", "benign_probability", "weight_mean")


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


def judgement(database: Database, runs: Path, job: str) -> list[dict[str, Any]]:
    """What the defence thought of each row of a job, in the provider's own words: its policy may tell users less.

    Args:
        database: With the jobs.
        runs: Where their directories are.
        job: Its id.

    Raises:
        UsageError: There is no such job, or nothing is known of its rows.
    """
    with database.reading() as session:
        known = session.scalar(select(Job.id).where(Job.id == job)) is not None
    # Of a job that failed long ago the audit alone is kept.
    files = [file for file in (runs / job / "run" / AUDIT, runs / job / AUDIT) if known and file.exists()]
    if not files:
        raise UsageError(
            f"Nothing is known of the rows of a job {job[:60]!r}.",
            hint="They are judged when its training begins. `antibody review list` shows the jobs that are held.",
            code="no_judgement",
        )
    with files[0].open(encoding="utf-8") as lines:
        return [{name: row[name] for name in JUDGED} for row in map(json.loads, lines)]


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
