"""Sends what the outbox holds, beside the server's answers and out of their way."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import NamedTuple

import httpx2
from sqlalchemy.exc import DBAPIError

from antibody.service.storage.database import Database
from antibody.service.webhooks.outbox import MOST_ATTEMPTS, Due, Outcome, Result, claim_due, settle
from antibody.service.webhooks.signing import signed

logger = logging.getLogger(__name__)

# Of one attempt as a whole, however slowly its receiver answers.
ATTEMPT_SECONDS = 10.0
POLL_SECONDS = 1.0
MOST_AT_ONCE = 32
GONE = 410


class Answer(NamedTuple):
    """What came of an attempt, and by which status or which kind of failure."""

    outcome: Outcome
    reason: str


async def send_forever(database: Database, count: Callable[[Result], None]) -> None:
    """Sends what is due, until it is cancelled. Several servers may do so at once.

    Args:
        database: With the outbox.
        count: Told the result of each attempt.
    """
    async with (
        httpx2.AsyncClient(follow_redirects=False, timeout=ATTEMPT_SECONDS) as client,
        asyncio.TaskGroup() as all_,
    ):
        sending: set[asyncio.Task[None]] = set()
        while True:
            for due in await _claimed(database, MOST_AT_ONCE - len(sending)):
                task = all_.create_task(_send(client, database, due, count))
                sending.add(task)
                task.add_done_callback(sending.discard)
            await asyncio.sleep(POLL_SECONDS)


async def _claimed(database: Database, most: int) -> list[Due]:
    try:
        return await asyncio.to_thread(claim_due, database, most) if most else []
    except DBAPIError:
        logger.warning("The database does not answer; webhooks wait.")
        return []


async def _send(client: httpx2.AsyncClient, database: Database, due: Due, count: Callable[[Result], None]) -> None:
    answer = await _answer(client, due)
    try:
        result = await asyncio.to_thread(settle, database, due, answer.outcome)
    except DBAPIError:
        logger.warning("The database does not answer; %s is sent to %s again.", due.event, due.webhook)
        return
    count(result)
    match result:
        case "failed":
            logger.info("%s did not take %s: %s; it is tried again.", due.webhook, due.event, answer.reason)
        case "given_up":
            logger.warning(
                "%s did not take %s of %s: %s. It is given up after %d attempts.",
                due.webhook, due.event, due.job, answer.reason, MOST_ATTEMPTS,
            )  # fmt: skip
        case "gone":
            logger.warning("%s is gone (%d) and is told nothing any more.", due.webhook, GONE)


async def _answer(client: httpx2.AsyncClient, due: Due) -> Answer:
    message = signed(due, int(time.time()))
    try:
        # Of the answer only the status is read: its body may be of any size.
        async with (
            asyncio.timeout(ATTEMPT_SECONDS),
            client.stream("POST", due.url, content=message.body, headers=message.headers) as response,
        ):
            status = response.status_code
    except Exception as error:  # noqa: BLE001 - whatever ails a receiver ends one attempt, and no other's
        return Answer("failed", type(error).__name__)
    if status == GONE:
        return Answer("gone", str(status))
    return Answer("delivered" if httpx2.codes.is_success(status) else "failed", str(status))
