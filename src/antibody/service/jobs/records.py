"""Jobs as their users see them: created, found, turned into wire types, and their verbs."""

import re
import secrets
import time
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from antibody.service.jobs.events import tell
from antibody.service.jobs.states import FINISHED, move, reached_from
from antibody.service.storage.ids import new_id
from antibody.service.storage.keys import Caller
from antibody.service.storage.paging import owned
from antibody.service.storage.tables import Checkpoint, Event, File, Job, Project
from antibody.service.wire.jobs import Checkpoint as WireCheckpoint
from antibody.service.wire.jobs import (
    CheckpointMetrics,
    Hyperparameters,
    JobCreate,
    JobError,
    JobStatus,
    UsedHyperparameters,
    UsedMethod,
    UsedSupervised,
)
from antibody.service.wire.jobs import Event as WireEvent
from antibody.service.wire.jobs import Job as WireJob


def create_job(
    session: Session,
    caller: Caller,
    request: JobCreate,
    asked: Hyperparameters,
    training: File,
    validation: File | None,
) -> Job:
    """Enters a job whose request has been checked."""
    job = Job(
        id=new_id("ftjob"),
        project_id=caller.project,
        model=request.model,
        suffix=request.suffix,
        seed=secrets.randbelow(2**31) if request.seed is None else request.seed,
        status="validating_files",
        created_at=time.time(),
        training_file=training.id,
        training_sha256=training.sha256,
        training_name=training.filename,
        validation_file=validation.id if validation else None,
        validation_sha256=validation.sha256 if validation else None,
        validation_name=validation.filename if validation else None,
        asked=asked.model_dump(exclude_none=True),
        used={},
        labels=request.metadata,
        result_files=[],
        held=False,
        approved=False,
        attempts=0,
    )
    session.add(job)
    session.flush()
    tell(session, job.id, f"Created fine-tuning job: {job.id}", once="created")
    tell(session, job.id, f"Validating training file: {training.id}", once="validating")
    return job


def find_job(session: Session, project: str, job_id: str) -> Job | None:
    job: Job | None = session.scalar(owned(Job, project).where(Job.id == job_id))
    return job


def active_jobs(session: Session, project: str) -> int:
    """How many of the project's jobs are not finished."""
    query = select(func.count()).select_from(Job).where(Job.project_id == project, Job.status.not_in(sorted(FINISHED)))
    return session.scalar(query) or 0


VERBS: dict[str, JobStatus] = {"cancel": "cancelled", "pause": "paused", "resume": "queued"}
# Not from wherever else a job is queued.
ONLY_FROM: dict[str, JobStatus] = {"resume": "paused"}
SAID: dict[str, str] = {
    "cancel": "The job was cancelled.",
    "pause": "The job was paused. It keeps its last checkpoint.",
    "resume": "The job was resumed and waits for a worker.",
}


def act(session: Session, job: Job, verb: str) -> str | None:
    """Cancels, pauses or resumes a job. Returns None, or why that is not possible."""
    if verb == "resume" and job.held:
        return "The job is held for the provider's review and cannot be resumed by its user."
    if not move(session, job.id, VERBS[verb], only_from=ONLY_FROM.get(verb)):
        session.refresh(job)
        needed = reached_from(VERBS[verb], only_from=ONLY_FROM.get(verb))
        return f"The job's status is {job.status!r}; {verb} needs {' or '.join(map(repr, needed))}."
    tell(session, job.id, SAID[verb], level="warn" if verb == "cancel" else "info")
    session.expire(job)
    return None


def fail(session: Session, job: str, error: JobError, *, worker: str | None = None) -> bool:
    """Ends a job with a reason its user can read."""
    if not move(session, job, "failed", worker=worker, error=error.model_dump()):
        return False
    tell(session, job, f"The job failed: {error.message}", level="error", once="failed", data={"code": error.code})
    return True


def model_name(job: Job, project_name: str) -> str:
    """``ft:{base}:{org}:{suffix}:{id}``."""
    suffix = re.sub(r"[^a-z0-9]+", "-", (job.suffix or "").lower()).strip("-")
    return f"ft:{job.model}:{project_name}:{suffix}:{job.id.removeprefix('ftjob-')}"


def project_name(session: Session, job: Job) -> str:
    return session.scalar(select(Project.name).where(Project.id == job.project_id)) or ""


def wire_job(job: Job) -> WireJob:
    used = UsedHyperparameters(**(job.asked | job.used))
    return WireJob(
        id=job.id,
        created_at=int(job.created_at),
        finished_at=_seconds(job.finished_at),
        error=JobError(**job.error) if job.error else None,
        fine_tuned_model=job.fine_tuned_model,
        hyperparameters=used,
        model=job.model,
        organization_id=job.project_id.replace("proj-", "org-"),
        result_files=list(job.result_files),
        seed=job.seed,
        status=job.status,  # type: ignore[arg-type]
        trained_tokens=job.trained_tokens,
        training_file=job.training_file,
        validation_file=job.validation_file,
        estimated_finish=_seconds(job.estimated_finish),
        metadata=job.labels,
        method=UsedMethod(supervised=UsedSupervised(hyperparameters=used)),
    )


def wire_event(event: Event) -> WireEvent:
    return WireEvent(
        id=event.id,
        created_at=int(event.created_at),
        level=event.level,  # type: ignore[arg-type]
        message=event.message,
        type=event.type,  # type: ignore[arg-type]
        data=event.data,
    )


def wire_checkpoint(checkpoint: Checkpoint, name: str) -> WireCheckpoint:
    return WireCheckpoint(
        id=checkpoint.id,
        created_at=int(checkpoint.created_at),
        fine_tuned_model_checkpoint=f"{name}:ckpt-step-{checkpoint.step}",
        fine_tuning_job_id=checkpoint.job_id,
        metrics=CheckpointMetrics(**checkpoint.metrics),
        step_number=checkpoint.step,
    )


def _seconds(value: Any) -> int | None:
    return None if value is None else int(value)
