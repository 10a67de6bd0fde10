"""Files and uploads."""

from typing import Annotated, Literal

from pydantic import Field

from antibody.service.wire.base import Request, WireModel

FINE_TUNE = "fine-tune"
RESULTS = "fine-tune-results"

Purpose = Literal["fine-tune"]


class FileObject(WireModel):
    """A stored file."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None = None
    filename: str
    purpose: Literal["fine-tune", "fine-tune-results"]
    status: Literal["uploaded", "processed", "error"]
    status_details: str | None = None


class FileDeleted(WireModel):
    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


class ExpiresAfter(Request):
    """How long a file is kept."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=3600, le=2_592_000)]


class UploadCreate(Request):
    """The announcement of a large file that comes in parts."""

    bytes: Annotated[int, Field(ge=1, le=8 * 2**30)]
    filename: Annotated[str, Field(min_length=1, max_length=255)]
    mime_type: Annotated[str, Field(min_length=1, max_length=100)]
    purpose: Purpose
    expires_after: ExpiresAfter | None = None


class UploadComplete(Request):
    part_ids: Annotated[list[str], Field(min_length=1, max_length=10_000)]
    md5: str | None = None


class UploadPart(WireModel):
    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str


class Upload(WireModel):
    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: Literal["pending", "completed", "cancelled", "expired"]
    file: FileObject | None = None
