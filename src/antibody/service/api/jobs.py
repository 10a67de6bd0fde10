"""`/v1/fine_tuning/jobs`."""

import re
from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Query, Request
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from antibody.service.api.context import CallerDep, Service, ServiceDep
from antibody.service.api.errors import RESPONSES
from antibody.service.api.files import SUFFIX
from antibody.service.api.paging import After, wire_page
from antibody.service.jobs.records import (
    act,
    active_jobs,
    create_job,
    find_job,
    model_name,
    wire_checkpoint,
    wire_event,
    wire_job,
)
from antibody.service.storage import tables
from antibody.service.storage.files import find_file
from antibody.service.storage.keys import Caller, lock_project
from antibody.service.storage.paging import owned, page
from antibody.service.wire.base import Page
from antibody.service.wire.errors import ApiError, not_found
from antibody.service.wire.files import FINE_TUNE
from antibody.service.wire.jobs import Checkpoint, Event, Hyperparameters, Job, JobCreate

router = APIRouter(prefix="/v1/fine_tuning/jobs", tags=["fine-tuning"], responses=RESPONSES)

# A key of metadata that can be part of a path into JSON in every database.
KEY = re.compile(r"[\w .:-]{1,64}", re.ASCII)
Limit = Annotated[int, Query(ge=1, le=100)]


@router.post("")
def create(service: ServiceDep, caller: CallerDep, request: JobCreate) -> Job:
    """Creates a job."""
    asked = _hyperparameters(request)
    if request.integrations:
        raise ApiError(400, "No integrations are served.", code="unsupported", param="integrations")
    if request.model.startswith("ft:"):
        raise ApiError(
            400, "A fine-tuned model cannot be fine-tuned again: only base models are aligned.", code="invalid_model",
            param="model",
        )  # fmt: skip
    if request.model not in service.policy.models:
        raise not_found("model", request.model, param="model")
    with service.store.database.writing() as session:
        lock_project(session, caller.project)
        if active_jobs(session, caller.project) >= service.policy.limits.active_jobs:
            raise ApiError(
                429,
                f"The project has {service.policy.limits.active_jobs} jobs that are not finished.",
                code="exceeded_quota",
                kind="insufficient_quota",
            )
        training = _file(session, caller, request.training_file, "training_file")
        validation = None
        if request.validation_file is not None:
            validation = _file(session, caller, request.validation_file, "validation_file")
        return wire_job(create_job(session, caller, request, asked, training, validation))


@router.get("")
def list_jobs(
    request: Request, service: ServiceDep, caller: CallerDep, limit: Limit = 20, after: After = None
) -> Page[Job]:
    """The project's jobs, the newest first. `metadata[key]=value` lists those with that pair."""
    query = _with_metadata(owned(tables.Job, caller.project), request.query_params)
    with service.store.database.reading() as session:
        return wire_page(page(session, query, tables.Job, after=after, limit=limit), after, wire_job)


@router.get("/{job_id}")
def retrieve(service: ServiceDep, caller: CallerDep, job_id: str) -> Job:
    """One job."""
    with service.store.database.reading() as session:
        return wire_job(_found(session, caller, job_id))


@router.post("/{job_id}/cancel")
def cancel(service: ServiceDep, caller: CallerDep, job_id: str) -> Job:
    """Ends a job, after the step it is at."""
    return _act(service, caller, job_id, "cancel")


@router.post("/{job_id}/pause")
def pause(service: ServiceDep, caller: CallerDep, job_id: str) -> Job:
    """Pauses a job, after the step it is at, which it saves."""
    return _act(service, caller, job_id, "pause")


@router.post("/{job_id}/resume")
def resume(service: ServiceDep, caller: CallerDep, job_id: str) -> Job:
    """Lets a paused job go on, exactly where it was."""
    return _act(service, caller, job_id, "resume")


@router.get("/{job_id}/events")
def events(service: ServiceDep, caller: CallerDep, job_id: str, limit: Limit = 20, after: After = None) -> Page[Event]:
    """What happened to a job, the newest first."""
    with service.store.database.reading() as session:
        job = _found(session, caller, job_id)
        query = select(tables.Event).where(tables.Event.job_id == job.id)
        return wire_page(page(session, query, tables.Event, after=after, limit=limit), after, wire_event)


@router.get("/{job_id}/checkpoints")
def checkpoints(
    service: ServiceDep, caller: CallerDep, job_id: str, limit: Limit = 10, after: After = None
) -> Page[Checkpoint]:
    """Where a job's state was saved, the newest first."""
    with service.store.database.reading() as session:
        job = _found(session, caller, job_id)
        name = model_name(job, caller.project_name)
        query = select(tables.Checkpoint).where(tables.Checkpoint.job_id == job.id)
        rows = page(session, query, tables.Checkpoint, after=after, limit=limit)
        return wire_page(rows, after, lambda row: wire_checkpoint(row, name))


def _hyperparameters(request: JobCreate) -> Hyperparameters:
    """From where they are now, or where they once were.

    Raises:
        ApiError: The method is not served, or they are in both places.
    """
    method = request.method
    if method is not None and method.type != "supervised":
        raise ApiError(
            400,
            f"The method {method.type!r} is not served: no defence covers it. Use 'supervised'.",
            code="unsupported_method",
            param="method.type",
        )
    if method is not None and (method.dpo is not None or method.reinforcement is not None):
        raise ApiError(
            400, "The method 'supervised' takes no dpo or reinforcement.", code="invalid_value", param="method"
        )
    new = method.supervised.hyperparameters if method is not None and method.supervised is not None else None
    if new is not None and request.hyperparameters is not None:
        raise ApiError(
            400,
            "Hyperparameters are given twice: leave out the top-level ones.",
            code="invalid_value",
            param="hyperparameters",
        )
    return new or request.hyperparameters or Hyperparameters()


def _file(session: Session, caller: Caller, file_id: str, param: str) -> tables.File:
    # Whose content stays as long as either the file or the job names it.
    file = find_file(session, caller.project, file_id, kept=True)
    if file is None:
        raise not_found("file", file_id, param=param)
    if file.purpose != FINE_TUNE or not file.filename.lower().endswith(SUFFIX):
        raise ApiError(400, f"{file_id} is no {SUFFIX} file to fine-tune on.", code="invalid_file", param=param)
    return file


def _with_metadata(query: Select[tuple[tables.Job]], parameters: Mapping[str, str]) -> Select[tuple[tables.Job]]:
    for name, value in parameters.items():
        if name.startswith("metadata[") and name.endswith("]"):
            if not KEY.fullmatch(name[9:-1]):
                raise ApiError(
                    400, "Only keys of letters, digits, spaces and _ . : - can be asked for.", code="invalid_value",
                    param="metadata",
                )  # fmt: skip
            query = query.where(tables.Job.labels[name[9:-1]].as_string() == value)
    return query


def _act(service: Service, caller: Caller, job_id: str, verb: str) -> Job:
    with service.store.database.writing() as session:
        job = _found(session, caller, job_id)
        refusal = act(session, job, verb)
        if refusal is not None:
            raise ApiError(400, refusal, code="wrong_state")
        return wire_job(job)


def _found(session: Session, caller: Caller, job_id: str) -> tables.Job:
    job = find_job(session, caller.project, job_id)
    if job is None:
        raise not_found("fine_tuning_job", job_id)
    return job
