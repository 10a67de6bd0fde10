"""The state machine. Nothing else changes a job's status."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from antibody.service.storage.database import database_time
from antibody.service.storage.tables import Job
from antibody.service.webhooks.outbox import announce
from antibody.service.wire.jobs import JobStatus

# From where a status may be reached.
REACHED_FROM: Mapping[JobStatus, frozenset[JobStatus]] = {
    "validating_files": frozenset(),
    "queued": frozenset({"validating_files", "running", "paused"}),
    "running": frozenset({"queued"}),
    "paused": frozenset({"queued", "running"}),
    "succeeded": frozenset({"running"}),
    "failed": frozenset({"validating_files", "queued", "running", "paused"}),
    "cancelled": frozenset({"validating_files", "queued", "running", "paused"}),
}
FINISHED: frozenset[JobStatus] = frozenset({"succeeded", "failed", "cancelled"})


def reached_from(to: JobStatus, *, only_from: JobStatus | None = None) -> list[JobStatus]:
    """From where `move` goes to a status, in the order of a job's life."""
    allowed = REACHED_FROM[to] if only_from is None else REACHED_FROM[to] & {only_from}
    return [status for status in REACHED_FROM if status in allowed]


def move(
    session: Session,
    job: str,
    to: JobStatus,
    *,
    worker: str | None = None,
    only_from: JobStatus | None = None,
    **values: Any,
) -> bool:
    """Moves a job to a status, if it is where that can be reached from. One statement, so that two never both do it.

    That a job is finished is announced to its project's webhooks, by the same transaction.

    Args:
        session: A transaction.
        job: Its id.
        to: The new status.
        worker: Only if this one holds its lease.
        only_from: Only from this one of the statuses that the new one can be reached from.
        values: Other columns to set with it.

    Returns:
        Whether it was moved.
    """
    # An estimate is only of a job that is running, and is made anew.
    values["estimated_finish"] = None
    if to in FINISHED:
        values |= {"finished_at": database_time(session), "held": False}
    query = update(Job).where(Job.id == job, Job.status.in_(reached_from(to, only_from=only_from)))
    if worker is not None:
        query = query.where(Job.worker == worker)
    moved = session.execute(
        query.values(status=to, **values).returning(Job.id).execution_options(synchronize_session=False)
    )
    if moved.first() is None:
        return False
    if to in FINISHED:
        announce(session, job, to, values["finished_at"])
    return True
