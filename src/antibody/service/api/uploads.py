"""`/v1/uploads`: a large file in parts."""

import hashlib
import time
from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, File, UploadFile
from sqlalchemy import select
from sqlalchemy.orm import Session

from antibody.service.api.context import CallerDep, Service, ServiceDep
from antibody.service.api.errors import RESPONSES
from antibody.service.api.files import refuse_over_quota, refuse_unsuitable
from antibody.service.policy import megabytes
from antibody.service.storage import tables
from antibody.service.storage.files import add_file, file_object
from antibody.service.storage.ids import new_id
from antibody.service.storage.keys import Caller, lock_project
from antibody.service.storage.paging import owned
from antibody.service.wire.errors import ApiError, not_found
from antibody.service.wire.files import Upload, UploadComplete, UploadCreate, UploadPart

router = APIRouter(prefix="/v1/uploads", tags=["uploads"], responses=RESPONSES)


@router.post("")
def create(service: ServiceDep, caller: CallerDep, request: UploadCreate) -> Upload:
    """Announces a file."""
    refuse_unsuitable(request.filename, request.purpose)
    if request.bytes > megabytes(service.policy.limits.upload_megabytes):
        raise ApiError(
            400,
            f"An upload has at most {service.policy.limits.upload_megabytes:g} MB.",
            code="file_too_large",
            param="bytes",
        )
    now = time.time()
    upload = tables.Upload(
        id=new_id("upload"),
        project_id=caller.project,
        filename=request.filename,
        purpose=request.purpose,
        bytes=request.bytes,
        status="pending",
        created_at=now,
        expires_at=now + service.policy.limits.upload_hours * 3600,
        file_expires_after=request.expires_after.seconds if request.expires_after else None,
    )
    with service.store.database.writing() as session:
        lock_project(session, caller.project)
        refuse_over_quota(session, service, caller, request.bytes)
        session.add(upload)
    return _wire(upload)


@router.post("/{upload_id}/parts")
def add_part(
    service: ServiceDep, caller: CallerDep, upload_id: str, data: Annotated[UploadFile, File(description="The bytes.")]
) -> UploadPart:
    """Adds a part. Their order is given at the end."""
    with service.store.database.reading() as session:
        # Before anything is stored; once more below, since parts may come at the same time.
        _refuse_too_many(session, _pending(session, caller, upload_id), data.size or 0)
    stored = service.store.blobs.store(data.file, limit=megabytes(service.policy.limits.part_megabytes))
    with service.store.database.writing() as session:
        lock_project(session, caller.project)
        upload = _pending(session, caller, upload_id)
        _refuse_too_many(session, upload, stored.size)
        part = tables.UploadPart(
            id=new_id("part"), upload_id=upload_id, sha256=stored.sha256, bytes=stored.size, created_at=time.time()
        )
        session.add(part)
    return UploadPart(id=part.id, created_at=int(part.created_at), upload_id=upload_id)


@router.post("/{upload_id}/complete")
def complete(service: ServiceDep, caller: CallerDep, upload_id: str, request: UploadComplete) -> Upload:
    """Makes a file of the parts, in the order given."""
    with service.store.database.reading() as session:
        upload = _pending(session, caller, upload_id)
        there = {part.id: part for part in _parts(session, upload)}
    for part_id in request.part_ids:
        if part_id not in there:
            raise not_found("part", part_id, param="part_ids")
    parts = [there[part_id] for part_id in request.part_ids]
    if sum(part.bytes for part in parts) != upload.bytes:
        raise ApiError(
            400,
            f"The parts have {sum(part.bytes for part in parts)} bytes, and {upload.bytes} were announced.",
            code="wrong_size",
            param="part_ids",
        )
    stored = service.store.blobs.store_pieces(_joined(service, parts, request.md5))
    with service.store.database.writing() as session:
        lock_project(session, caller.project)
        upload = _pending(session, caller, upload_id)
        expires = time.time() + upload.file_expires_after if upload.file_expires_after else None
        file = add_file(
            session, caller.project, stored, filename=upload.filename, purpose=upload.purpose, expires_at=expires
        )
        upload.status, upload.file_id = "completed", file.id
        return _wire(upload, file)


@router.post("/{upload_id}/cancel")
def cancel(service: ServiceDep, caller: CallerDep, upload_id: str) -> Upload:
    """Gives an upload up."""
    with service.store.database.writing() as session:
        lock_project(session, caller.project)
        upload = _pending(session, caller, upload_id)
        upload.status = "cancelled"
        return _wire(upload)


def _refuse_too_many(session: Session, upload: tables.Upload, size: int) -> None:
    if sum(part.bytes for part in _parts(session, upload)) + size > upload.bytes:
        raise ApiError(400, f"The parts have more than the {upload.bytes} bytes announced.", code="too_many_bytes")


def _pending(session: Session, caller: Caller, upload_id: str) -> tables.Upload:
    upload: tables.Upload | None = session.scalar(
        owned(tables.Upload, caller.project).where(tables.Upload.id == upload_id)
    )
    if upload is None:
        raise not_found("upload", upload_id)
    status = "expired" if upload.status == "pending" and upload.expires_at < time.time() else upload.status
    if status != "pending":
        raise ApiError(400, f"The upload is {status}.", code="wrong_state")
    return upload


def _parts(session: Session, upload: tables.Upload) -> list[tables.UploadPart]:
    return list(session.scalars(select(tables.UploadPart).where(tables.UploadPart.upload_id == upload.id)))


def _joined(service: Service, parts: list[tables.UploadPart], md5: str | None) -> Iterator[bytes]:
    """The parts' content. What reads it to its end keeps nothing where the MD5 turns out to be another."""
    digest = hashlib.md5(usedforsecurity=False)
    for part in parts:
        for piece in service.store.blobs.pieces(part.sha256):
            digest.update(piece)
            yield piece
    if md5 is not None and digest.hexdigest() != md5.lower():
        raise ApiError(400, "The file's MD5 is another. Send it again.", code="wrong_md5", param="md5")


def _wire(upload: tables.Upload, file: tables.File | None = None) -> Upload:
    return Upload(
        id=upload.id,
        bytes=upload.bytes,
        created_at=int(upload.created_at),
        expires_at=int(upload.expires_at),
        filename=upload.filename,
        purpose=upload.purpose,
        status=upload.status,  # type: ignore[arg-type]
        file=file_object(file) if file else None,
    )
