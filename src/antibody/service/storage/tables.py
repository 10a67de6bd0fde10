"""The tables. `number` orders a list and pages it; `id` is what a client sees."""

from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, Double, ForeignKey, Index, Integer, MetaData, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
# SQLite counts up an INTEGER alone.
Number = BigInteger().with_variant(Integer, "sqlite")


class Table(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map: ClassVar[dict[Any, Any]] = {dict[str, Any]: JSON, list[Any]: JSON, float: Double, str: Text}


class Project(Table):
    """What owns objects. Projects cannot see each other's."""

    __tablename__ = "projects"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[float]


class Key(Table):
    """A key of a project. The secret itself is not kept, only its hash."""

    __tablename__ = "keys"
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    name: Mapped[str]
    hash: Mapped[str]
    created_at: Mapped[float]
    revoked_at: Mapped[float | None]


class File(Table):
    """A file of a project. Several may have the same content, which is kept once."""

    __tablename__ = "files"
    number: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(unique=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    filename: Mapped[str]
    purpose: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(index=True)
    created_at: Mapped[float]
    expires_at: Mapped[float | None]


class Upload(Table):
    """A file that comes in parts."""

    __tablename__ = "uploads"
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    filename: Mapped[str]
    purpose: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[str]
    created_at: Mapped[float]
    expires_at: Mapped[float]
    file_expires_after: Mapped[int | None]
    file_id: Mapped[str | None]


class UploadPart(Table):
    __tablename__ = "upload_parts"
    id: Mapped[str] = mapped_column(primary_key=True)
    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id"), index=True)
    sha256: Mapped[str] = mapped_column(index=True)
    bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[float]


class Job(Table):
    """A fine-tuning job.

    Attributes:
        status: What a client sees; only `jobs.states` changes it.
        asked: The hyperparameters that the user gave.
        used: Those it trains with.
        training_sha256: Of the rows, which are kept until the job has finished, even if the file is deleted.
        held: Whether it waits for the provider's review.
        approved: Whether the provider let it train although it is mostly suppressed.
        worker: Who works on it, whatever its status.
        leased_until: When that ends unless the worker says it is alive; seconds of the database's clock.
        attempts: How often a worker has begun it since it last made progress.
        not_before: Until when no worker begins it, as the machine has no room for it; seconds of the database's clock.
    """

    __tablename__ = "jobs"
    number: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(unique=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    model: Mapped[str]
    suffix: Mapped[str | None]
    seed: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[str]
    created_at: Mapped[float]
    finished_at: Mapped[float | None]
    error: Mapped[dict[str, Any] | None]
    fine_tuned_model: Mapped[str | None]
    training_file: Mapped[str]
    training_sha256: Mapped[str]
    training_name: Mapped[str]
    validation_file: Mapped[str | None]
    validation_sha256: Mapped[str | None]
    validation_name: Mapped[str | None]
    asked: Mapped[dict[str, Any]]
    used: Mapped[dict[str, Any]]
    labels: Mapped[dict[str, Any] | None]
    trained_tokens: Mapped[int | None] = mapped_column(BigInteger)
    estimated_finish: Mapped[float | None]
    result_files: Mapped[list[Any]]
    held: Mapped[bool] = mapped_column(default=False)
    approved: Mapped[bool] = mapped_column(default=False)
    worker: Mapped[str | None]
    leased_until: Mapped[float | None]
    attempts: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[float | None]

    __table_args__ = (Index(None, "status", "number"),)


class Event(Table):
    """Something that happened to a job. The same event told twice, as after a crash, is kept once."""

    __tablename__ = "events"
    number: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(unique=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    created_at: Mapped[float]
    level: Mapped[str]
    message: Mapped[str]
    type: Mapped[str]
    data: Mapped[dict[str, Any]]
    once: Mapped[str]

    __table_args__ = (UniqueConstraint("job_id", "once"), Index(None, "job_id", "number"))


class Checkpoint(Table):
    """A step at which a job's state was saved."""

    __tablename__ = "checkpoints"
    number: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(unique=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    step: Mapped[int]
    metrics: Mapped[dict[str, Any]]
    created_at: Mapped[float]

    __table_args__ = (UniqueConstraint("job_id", "step"),)


class Model(Table):
    """A fine-tuned model. Base models are in the policy."""

    __tablename__ = "models"
    number: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(unique=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), unique=True)
    base: Mapped[str]
    run: Mapped[str]
    created_at: Mapped[float]


class Webhook(Table):
    """An address at which a project is told that its jobs have finished.

    Attributes:
        secret: Readable, as every message is signed with it.
        gone_at: When it answered that it is gone for good.
    """

    __tablename__ = "webhooks"
    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    url: Mapped[str]
    secret: Mapped[str]
    created_at: Mapped[float]
    gone_at: Mapped[float | None]


class WebhookEvent(Table):
    """What is still to be sent to an endpoint.

    Attributes:
        id: The event's, the same for all endpoints.
        created_at: When the job finished.
        attempts: How often it was begun to be sent.
        due_at: Before which nobody sends it; seconds of the database's clock.
    """

    __tablename__ = "webhook_events"
    id: Mapped[str] = mapped_column(primary_key=True)
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id"), primary_key=True, index=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    type: Mapped[str]
    created_at: Mapped[float]
    attempts: Mapped[int]
    due_at: Mapped[float] = mapped_column(index=True)
