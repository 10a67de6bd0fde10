"""Files of a project."""

import re
import time
import unicodedata
from typing import NamedTuple

from sqlalchemy import and_, func, not_, or_, select
from sqlalchemy.orm import Session

from antibody.service.storage.blobs import Stored
from antibody.service.storage.ids import new_id
from antibody.service.storage.paging import owned
from antibody.service.storage.tables import File, Upload, UploadPart
from antibody.service.wire.files import FileObject

LONGEST_NAME = 200


def safe_name(name: str) -> str:
    """The name of a file without folders and without what a terminal or a header could misread."""
    last = re.split(r"[/\\]", name)[-1]
    kept = "".join(letter for letter in last if unicodedata.category(letter)[0] not in "CZ" or letter == " ")
    return kept.strip().strip(".")[-LONGEST_NAME:] or "file"


def add_file(
    session: Session,
    project: str,
    stored: Stored,
    *,
    filename: str,
    purpose: str,
    expires_at: float | None = None,
    file_id: str | None = None,
) -> File:
    """Enters a stored blob as a file."""
    file = File(
        id=file_id or new_id("file"),
        project_id=project,
        filename=safe_name(filename),
        purpose=purpose,
        bytes=stored.size,
        sha256=stored.sha256,
        created_at=time.time(),
        expires_at=expires_at,
    )
    session.add(file)
    session.flush()
    return file


def find_file(session: Session, project: str, file_id: str, *, kept: bool = False) -> File | None:
    """A file of the project that has not expired. `kept`: nobody deletes it before the transaction's end."""
    query = owned(File, project).where(File.id == file_id)
    file: File | None = session.scalar(query.with_for_update(read=True) if kept else query)
    if file is not None and file.expires_at is not None and file.expires_at <= time.time():
        return None
    return file


def delete_file(file: File) -> None:
    """From now on it is not found. Its row goes with its content: a quota counts what is still on the disk."""
    file.expires_at = time.time()


class Taken(NamedTuple):
    """Bytes of a project.

    Attributes:
        kept: Of files, and of uploads that are not finished, which may take as much as was announced.
        leaving: Of files that were deleted or expired, and of parts of ended uploads, that are not swept yet.
    """

    kept: int
    leaving: int


def stored_bytes(session: Session, project: str) -> Taken:
    """What the project takes."""
    now = time.time()
    files = select(func.sum(File.bytes)).where(File.project_id == project)
    uploads = select(func.sum(Upload.bytes)).where(Upload.project_id == project)
    parts = select(func.sum(UploadPart.bytes)).join(Upload, Upload.id == UploadPart.upload_id)
    pending = and_(Upload.status == "pending", Upload.expires_at > now)
    kept = files.where(or_(File.expires_at.is_(None), File.expires_at > now)), uploads.where(pending)
    leaving = files.where(File.expires_at <= now), parts.where(Upload.project_id == project, not_(pending))
    return Taken(*(sum(int(session.scalar(query) or 0) for query in queries) for queries in (kept, leaving)))


def file_object(file: File) -> FileObject:
    return FileObject(
        id=file.id,
        bytes=file.bytes,
        created_at=int(file.created_at),
        expires_at=None if file.expires_at is None else int(file.expires_at),
        filename=file.filename,
        purpose=file.purpose,  # type: ignore[arg-type]
        status="processed",
    )
