"""Messages as Standard Webhooks has them (https://www.standardwebhooks.com): a body, and headers that sign it."""

import base64
import hashlib
import hmac
from typing import NamedTuple

from antibody.service.webhooks.outbox import Due
from antibody.service.wire.webhooks import JobReference, WebhookEvent


class Message(NamedTuple):
    """What is posted."""

    headers: dict[str, str]
    body: bytes


def signed(due: Due, timestamp: int) -> Message:
    """The message of an event.

    Args:
        due: The event.
        timestamp: Now, in seconds since 1970: a receiver refuses what is much older.
    """
    event = WebhookEvent(id=due.event, created_at=int(due.created_at), type=due.type, data=JobReference(id=due.job))
    body = event.model_dump_json().encode()
    key = base64.b64decode(due.secret.removeprefix("whsec_"))
    digest = hmac.digest(key, f"{due.event}.{timestamp}.".encode() + body, hashlib.sha256)
    headers = {
        "content-type": "application/json",
        "webhook-id": due.event,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
    return Message(headers, body)
