"""The directories of jobs: what the service keeps in them, and what goes once nobody needs it.

Everything here may be broken off, or done by two servers at once, and goes on the next time.
"""

import contextlib
import logging
import shutil
from pathlib import Path

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from antibody.service.policy import Retention
from antibody.service.storage.database import Database, database_time
from antibody.service.storage.tables import Job, Model

logger = logging.getLogger(__name__)

TRAINING_ROWS = "training.jsonl"
VALIDATION_ROWS = "validation.jsonl"
AUDIT = "audit.jsonl"
DAY = 86_400.0


def forget_rows(folder: Path) -> None:
    """Removes the copies of a job's rows: a finished job's stay in its user's files alone."""
    for name in (TRAINING_ROWS, VALIDATION_ROWS):
        (folder / name).unlink(missing_ok=True)


def remove_directory(folder: Path) -> bool:
    """Removes a directory, and returns whether it is gone. Where it cannot be removed, that is logged."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        # Another server removes it too. What that one leaves, the next sweep finds.
        return not folder.exists()
    except OSError as error:
        logger.warning("The directory of %s cannot be removed (%s); it is tried again.", folder.name, error.strerror)
        return False
    return True


def sweep_runs(database: Database, runs: Path, retention: Retention) -> None:
    """Removes rows of finished jobs, the directories of deleted models, and of jobs that the policy keeps no longer.

    Args:
        database: With the jobs.
        runs: Where their directories are.
        retention: The policy's.
    """
    with_rows = {path.parent.name for name in (TRAINING_ROWS, VALIDATION_ROWS) for path in runs.glob(f"*/{name}")}
    with database.reading() as session:
        # Cancelled or refused while nobody worked on it: no worker has cleared up after it.
        finished = _unleased(session, Job.finished_at.is_not(None), Job.id.in_(with_rows))
        deleted = _unleased(session, Job.status == "succeeded", ~select(Model).where(Model.job_id == Job.id).exists())
        expired: list[str] = []
        for status, days in (("failed", retention.failed_days), ("cancelled", retention.cancelled_days)):
            if days is not None:
                ended = Job.finished_at < database_time(session) - days * DAY
                expired += _unleased(session, Job.status == status, ended)
    for job in finished:
        forget_rows(runs / job)
    for job in deleted:
        if (runs / job).exists():
            remove_directory(runs / job)
    for job in expired:
        _remove_but_audit(runs / job)


def _unleased(session: Session, *conditions: ColumnElement[bool]) -> list[str]:
    """Jobs that no worker may still be at."""
    unleased = or_(Job.leased_until.is_(None), Job.leased_until < database_time(session))
    return list(session.scalars(select(Job.id).where(unleased, *conditions)))


def _remove_but_audit(folder: Path) -> None:
    """The audit is moved out first."""
    run = folder / "run"
    if not run.exists():
        return
    with contextlib.suppress(FileNotFoundError):
        (run / AUDIT).replace(folder / AUDIT)
    remove_directory(run)
