"""Fine-tuning jobs, their events and checkpoints."""

from typing import Annotated, Any, Literal

from pydantic import Field, StrictInt

from antibody.service.wire.base import Identifier, JsonObject, Metadata, Request, WireModel

JobStatus = Literal["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"]
Level = Literal["info", "warn", "error"]
EventType = Literal["message", "metrics", "moderation_checks"]

AutoOr = Literal["auto"]
BatchSize = AutoOr | Annotated[StrictInt, Field(ge=1, le=256)]
Epochs = AutoOr | Annotated[StrictInt, Field(ge=1, le=50)]
# Above 100 nothing that is trained on comes back as a number.
Multiplier = AutoOr | Annotated[float, Field(gt=0, le=100, allow_inf_nan=False, strict=True)]


class Hyperparameters(Request):
    """What the user chose; ``auto`` is the provider's choice."""

    batch_size: BatchSize | None = None
    learning_rate_multiplier: Multiplier | None = None
    n_epochs: Epochs | None = None


class SupervisedMethod(Request):
    hyperparameters: Hyperparameters | None = None


class Method(Request):
    """How the model is fine-tuned. The types `dpo` and `reinforcement` are known and refused."""

    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: SupervisedMethod | None = None
    dpo: JsonObject | None = None
    reinforcement: JsonObject | None = None


class JobCreate(Request):
    """A new job."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    training_file: Identifier
    validation_file: Identifier | None = None
    suffix: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    seed: Annotated[StrictInt, Field(ge=0, le=2_147_483_647)] | None = None
    metadata: Metadata | None = None
    method: Method | None = None
    hyperparameters: Hyperparameters | None = None
    integrations: list[JsonObject] | None = None


class JobError(WireModel):
    code: str
    message: str
    param: str | None = None


class UsedHyperparameters(WireModel):
    """What a job trains with; ``auto`` until that is decided."""

    batch_size: Literal["auto"] | int = "auto"
    learning_rate_multiplier: Literal["auto"] | float = "auto"
    n_epochs: Literal["auto"] | int = "auto"


class UsedSupervised(WireModel):
    hyperparameters: UsedHyperparameters


class UsedMethod(WireModel):
    type: Literal["supervised"] = "supervised"
    supervised: UsedSupervised


class Job(WireModel):
    """A job, as it is now."""

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    finished_at: int | None = None
    error: JobError | None = None
    fine_tuned_model: str | None = None
    hyperparameters: UsedHyperparameters
    model: str
    organization_id: str
    result_files: list[str]
    seed: int
    status: JobStatus
    trained_tokens: int | None = None
    training_file: str
    validation_file: str | None = None
    estimated_finish: int | None = None
    integrations: list[JsonObject] | None = None
    metadata: dict[str, str] | None = None
    method: UsedMethod


class Event(WireModel):
    """Something that happened to a job."""

    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: Level
    message: str
    type: EventType = "message"
    data: dict[str, Any] = Field(default_factory=dict)


class CheckpointMetrics(WireModel):
    """Null where it was not measured."""

    step: int
    train_loss: float | None = None
    train_mean_token_accuracy: float | None = None
    valid_loss: float | None = None
    valid_mean_token_accuracy: float | None = None
    full_valid_loss: float | None = None
    full_valid_mean_token_accuracy: float | None = None


class Checkpoint(WireModel):
    """A step at which the job's state was saved."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    metrics: CheckpointMetrics
    step_number: int
