"""The addresses that projects are told at. A secret is shown once; it is kept readable, as every message is signed."""

import base64
import secrets
import time
from typing import NamedTuple

from pydantic import HttpUrl, TypeAdapter, ValidationError
from sqlalchemy import delete, select

from antibody.errors import UsageError
from antibody.service.storage.database import Database
from antibody.service.storage.ids import new_id
from antibody.service.storage.tables import Project, Webhook, WebhookEvent

# As Standard Webhooks has it: 24 to 64 random bytes.
SECRET_BYTES = 32
URL: TypeAdapter[HttpUrl] = TypeAdapter(HttpUrl)


class NewWebhook(NamedTuple):
    """An endpoint that was made.

    Attributes:
        id: By which it is listed and deleted.
        url: As it is called.
        secret: For its receiver alone.
    """

    id: str
    url: str
    secret: str


class WebhookRow(NamedTuple):
    """An endpoint as it is listed.

    Attributes:
        id: Its own.
        project: Name of the project whose jobs it is told of.
        url: Where it is.
        created_at: When it was made.
        gone_at: When it answered that it is gone for good; it is told nothing since.
    """

    id: str
    project: str
    url: str
    created_at: float
    gone_at: float | None


def create_webhook(database: Database, *, project: str, url: str) -> NewWebhook:
    """Makes an endpoint of a project.

    Raises:
        UsageError: There is no such project, or the URL cannot be used.
    """
    address = _address(url)
    secret = f"whsec_{base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()}"
    with database.writing() as session:
        owner = session.scalar(select(Project.id).where(Project.name == project))
        if owner is None:
            raise UsageError(
                f"There is no project {project[:60]!r}.",
                hint="`antibody keys list` shows them, `antibody keys create --project NAME` makes one.",
                code="no_project",
            )
        made = Webhook(id=new_id("webhook"), project_id=owner, url=address, secret=secret, created_at=time.time())
        session.add(made)
    return NewWebhook(made.id, address, secret)


def list_webhooks(database: Database) -> list[WebhookRow]:
    query = select(Webhook.id, Project.name, Webhook.url, Webhook.created_at, Webhook.gone_at)
    query = query.join(Project, Project.id == Webhook.project_id).order_by(Webhook.created_at)
    with database.reading() as session:
        return [WebhookRow(*row) for row in session.execute(query)]


def delete_webhook(database: Database, webhook: str) -> None:
    """Removes an endpoint, and what was still to be sent to it.

    Raises:
        UsageError: There is no such endpoint.
    """
    with database.writing() as session:
        # Whoever announces a job holds the row too, so that nothing is added meanwhile.
        found = session.scalar(select(Webhook).where(Webhook.id == webhook).with_for_update())
        if found is None:
            raise UsageError(
                f"There is no webhook {webhook[:60]!r}.", hint="`antibody webhooks list` shows them.", code="no_webhook"
            )
        session.execute(delete(WebhookEvent).where(WebhookEvent.webhook_id == webhook))
        session.delete(found)


def _address(url: str) -> str:
    """A URL, checked. None that is refused is repeated: it may hold a password."""
    try:
        parsed = URL.validate_python(url)
    except ValidationError as error:
        reason = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise _unusable(f"The URL cannot be used: {reason}.", "Write --url https://HOST/PATH.") from error
    if parsed.username is not None or parsed.password is not None:
        raise _unusable(
            "The URL holds a user name or a password, which lists would show.",
            "Leave them out: the signature of each message tells its receiver who sends it.",
        )
    return str(parsed)


def _unusable(message: str, hint: str) -> UsageError:
    return UsageError(message, hint=hint, code="bad_url")
