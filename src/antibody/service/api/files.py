"""`/v1/files`."""

import time
from collections.abc import Iterator
from typing import Annotated, Literal

from fastapi import APIRouter, File, Form, Query, UploadFile
from fastapi.responses import StreamingResponse
from sqlalchemy.orm import Session

from antibody.service.api.context import CallerDep, Service, ServiceDep
from antibody.service.api.errors import RESPONSES
from antibody.service.api.paging import After, wire_page
from antibody.service.policy import megabytes
from antibody.service.storage import tables
from antibody.service.storage.files import add_file, delete_file, file_object, find_file, stored_bytes
from antibody.service.storage.keys import Caller, lock_project
from antibody.service.storage.paging import owned, page
from antibody.service.wire.base import Page
from antibody.service.wire.errors import ApiError, not_found
from antibody.service.wire.files import FINE_TUNE, FileDeleted, FileObject

router = APIRouter(prefix="/v1/files", tags=["files"], responses=RESPONSES)

SUFFIX = ".jsonl"


@router.post("")
def create(
    service: ServiceDep,
    caller: CallerDep,
    file: Annotated[UploadFile, File(description="Training rows, one JSON object a line.")],
    purpose: Annotated[str, Form(max_length=100)],
    anchor: Annotated[Literal["created_at"] | None, Form(alias="expires_after[anchor]")] = None,
    seconds: Annotated[int | None, Form(alias="expires_after[seconds]", ge=3600, le=2_592_000)] = None,
) -> FileObject:
    """Stores a file."""
    refuse_unsuitable(file.filename or "", purpose)
    if (anchor is None) != (seconds is None):
        raise ApiError(400, "expires_after needs both anchor and seconds.", code="invalid_value", param="expires_after")
    # Once before it is stored, and once where nobody else of the project adds one meanwhile.
    with service.store.database.reading() as session:
        refuse_over_quota(session, service, caller, file.size or 0)
    stored = service.store.blobs.store(file.file, limit=megabytes(service.policy.limits.file_megabytes))
    with service.store.database.writing() as session:
        lock_project(session, caller.project)
        refuse_over_quota(session, service, caller, stored.size)
        row = add_file(
            session,
            caller.project,
            stored,
            filename=file.filename or "",
            purpose=purpose,
            expires_at=time.time() + seconds if seconds else None,
        )
        return file_object(row)


@router.get("")
def list_files(
    service: ServiceDep,
    caller: CallerDep,
    purpose: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Literal["asc", "desc"] = "desc",
    after: After = None,
) -> Page[FileObject]:
    """The project's files."""
    query = owned(tables.File, caller.project)
    if purpose is not None:
        query = query.where(tables.File.purpose == purpose)
    query = query.where(tables.File.expires_at.is_(None) | (tables.File.expires_at > time.time()))
    with service.store.database.reading() as session:
        return wire_page(page(session, query, tables.File, after=after, limit=limit, order=order), after, file_object)


@router.get("/{file_id}")
def retrieve(service: ServiceDep, caller: CallerDep, file_id: str) -> FileObject:
    """One file."""
    return file_object(_found(service, caller, file_id))


@router.delete("/{file_id}")
def delete(service: ServiceDep, caller: CallerDep, file_id: str) -> FileDeleted:
    """Deletes a file. Its content follows after about an hour, unless an unfinished job still needs it."""
    with service.store.database.writing() as session:
        file = find_file(session, caller.project, file_id)
        if file is None:
            raise not_found("file", file_id)
        delete_file(file)
    return FileDeleted(id=file_id)


@router.get("/{file_id}/content", response_class=StreamingResponse)
def content(service: ServiceDep, caller: CallerDep, file_id: str) -> StreamingResponse:
    """A file's content."""
    file = _found(service, caller, file_id)
    pieces = service.store.blobs.pieces(file.sha256)
    # Read here: what cannot be read must be said before the answer begins.
    first = next(pieces, b"")
    headers = {"content-length": str(file.bytes), "x-content-type-options": "nosniff"}
    return StreamingResponse(_joined(first, pieces), media_type="application/octet-stream", headers=headers)


def refuse_unsuitable(filename: str, purpose: str) -> None:
    """Refuses what no job could train on.

    Raises:
        ApiError: The purpose or the name's suffix is another.
    """
    if purpose != FINE_TUNE:
        raise ApiError(400, f"Only the purpose {FINE_TUNE!r} is served.", code="invalid_purpose", param="purpose")
    if not filename.lower().endswith(SUFFIX):
        raise ApiError(
            400, f"Only {SUFFIX} files can be trained on: one JSON object a line.", code="invalid_file", param="file"
        )


def refuse_over_quota(session: Session, service: Service, caller: Caller, size: int) -> None:
    """Refuses what the project has no room for.

    Raises:
        ApiError: ``exceeded_quota``.
    """
    most = service.policy.limits.stored_megabytes
    taken = stored_bytes(session, caller.project)
    if taken.kept + size > megabytes(most):
        message = f"The project's files would take more than {most:g} MB. Delete some."
    elif taken.kept + taken.leaving + size > 2 * megabytes(most):
        # Else what is sent and given up in turn would fill the disk.
        leaving = taken.leaving / megabytes(1)
        message = f"Deleted files and ended uploads still take {leaving:.1f} MB. Send this one in about an hour."
    else:
        return
    raise ApiError(429, message, code="exceeded_quota", kind="insufficient_quota")


def _found(service: Service, caller: Caller, file_id: str) -> tables.File:
    with service.store.database.reading() as session:
        file = find_file(session, caller.project, file_id)
    if file is None:
        raise not_found("file", file_id)
    return file


def _joined(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
