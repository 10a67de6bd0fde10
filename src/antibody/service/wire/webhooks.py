"""What is sent when a job has finished."""

from typing import Literal

from antibody.service.wire.base import WireModel


class JobReference(WireModel):
    """Which job. Its key's owner asks for the rest."""

    id: str


class WebhookEvent(WireModel):
    """The body of a message."""

    id: str
    object: Literal["event"] = "event"
    created_at: int
    type: str
    data: JobReference
