"""What is told of a job: events and checkpoints."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from antibody.service.storage.database import database_time
from antibody.service.storage.ids import new_id
from antibody.service.storage.tables import Checkpoint, Event
from antibody.service.wire.jobs import CheckpointMetrics, EventType, Level

INSERT: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def tell(
    session: Session,
    job: str,
    message: str,
    *,
    once: str | None = None,
    level: Level = "info",
    type: EventType = "message",
    data: Mapping[str, Any] | None = None,
) -> None:
    """Adds an event.

    Args:
        session: A transaction.
        job: Its id.
        message: For the user. Holds nothing of a file's content.
        once: Names the event: one of that name is added once, also where a step is made again after a crash.
        level: info, warn or error.
        type: message, metrics or moderation_checks.
        data: For programs.
    """
    event_id = new_id("ftevent")
    values = {
        "id": event_id,
        "job_id": job,
        "created_at": database_time(session),
        "level": level,
        "message": message,
        "type": type,
        "data": dict(data or {}),
        "once": once or event_id,
    }
    _insert_once(session, Event, values)


def add_checkpoint(session: Session, job: str, metrics: CheckpointMetrics) -> None:
    """Adds a checkpoint, unless it is there."""
    values = {
        "id": new_id("ftckpt"),
        "job_id": job,
        "step": metrics.step,
        "metrics": metrics.model_dump(),
        "created_at": database_time(session),
    }
    _insert_once(session, Checkpoint, values)


def _insert_once(session: Session, table: Any, values: dict[str, Any]) -> None:
    insert = INSERT[session.get_bind().dialect.name](table).values(**values)
    session.execute(insert.on_conflict_do_nothing())
