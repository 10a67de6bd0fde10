"""What is still to be sent: a row for each event and endpoint, which goes once that is settled.

Who sends a row leases it, by making it due again only later. A sender that dies has not settled it: another sends it.
"""

from typing import Literal, NamedTuple

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from antibody.service.storage.database import Database, database_time
from antibody.service.storage.ids import random_text
from antibody.service.storage.tables import Job, Webhook, WebhookEvent

Outcome = Literal["delivered", "failed", "gone"]
Result = Literal["delivered", "failed", "gone", "given_up"]

# Seconds until another may send what one has begun to send; above what a sender takes.
LEASE_SECONDS = 60.0
# Seconds after the first attempt; doubled after each one: 14 attempts within 23 hours.
FIRST_WAIT = 10.0
MOST_ATTEMPTS = 14


class Due(NamedTuple):
    """An event to be sent.

    Attributes:
        event: Its id, the same at every attempt.
        webhook: The endpoint's id.
        url: Where that is.
        secret: What it is signed with.
        type: fine_tuning.job.succeeded, ...
        job: Of which job.
        created_at: When that finished.
        attempt: Which one this is, from 1.
    """

    event: str
    webhook: str
    url: str
    secret: str
    type: str
    job: str
    created_at: float
    attempt: int


def announce(session: Session, job: str, status: str, at: float) -> None:
    """Puts in the outbox that a job finished, for each of its project's endpoints.

    Args:
        session: The transaction that ends the job.
        job: Its id.
        status: The job's now.
        at: When it finished.
    """
    event = f"evt_{random_text(24)}"
    query = select(Webhook.id).join(Job, Job.project_id == Webhook.project_id)
    query = query.where(Job.id == job, Webhook.gone_at.is_(None))
    # Held to the transaction's end, so that none is deleted meanwhile.
    for webhook in session.scalars(query.with_for_update(read=True, key_share=True, of=Webhook)):
        session.add(
            WebhookEvent(
                id=event,
                webhook_id=webhook,
                job_id=job,
                type=f"fine_tuning.job.{status}",
                created_at=at,
                attempts=0,
                due_at=at,
            )
        )


def claim_due(database: Database, most: int) -> list[Due]:
    """Leases what is due, the longest due first."""
    with database.writing() as session:
        now = database_time(session)
        query = select(WebhookEvent, Webhook).join(Webhook, Webhook.id == WebhookEvent.webhook_id)
        query = query.where(WebhookEvent.due_at <= now).order_by(WebhookEvent.due_at).limit(most)
        claimed = []
        for event, webhook in session.execute(query.with_for_update(of=WebhookEvent, skip_locked=True)):
            event.attempts += 1
            event.due_at = now + LEASE_SECONDS
            claimed.append(
                Due(
                    event=event.id,
                    webhook=webhook.id,
                    url=webhook.url,
                    secret=webhook.secret,
                    type=event.type,
                    job=event.job_id,
                    created_at=event.created_at,
                    attempt=event.attempts,
                )
            )
        return claimed


def settle(database: Database, due: Due, outcome: Outcome) -> Result:
    """Says what came of an attempt. Where another has begun a later one, that one's word counts.

    An endpoint that is gone is told nothing any more, of this event or another.
    """
    same = (WebhookEvent.id == due.event, WebhookEvent.webhook_id == due.webhook, WebhookEvent.attempts == due.attempt)
    with database.writing() as session:
        if outcome == "failed" and due.attempt < MOST_ATTEMPTS:
            again = database_time(session) + FIRST_WAIT * 2 ** (due.attempt - 1)
            session.execute(update(WebhookEvent).where(*same).values(due_at=again))
            return "failed"
        if outcome == "gone":
            ended = update(Webhook).where(Webhook.id == due.webhook).values(gone_at=database_time(session))
            session.execute(ended)
            session.execute(delete(WebhookEvent).where(WebhookEvent.webhook_id == due.webhook))
            return "gone"
        session.execute(delete(WebhookEvent).where(*same))
    return "given_up" if outcome == "failed" else "delivered"
