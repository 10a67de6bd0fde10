"""Sends what the outbox holds, beside the server's answers and out of their way."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import NamedTuple

import httpx2
from anyio import CapacityLimiter, to_thread
from sqlalchemy.exc import SQLAlchemyError

from antibody.service.storage.database import Database
from antibody.service.webhooks.outbox import MOST_ATTEMPTS, Due, Outcome, Result, claim_due, settle
from antibody.service.webhooks.signing import signed

logger = logging.getLogger(__name__)

# Of one attempt as a whole, however slowly its receiver answers.
ATTEMPT_SECONDS = 10.0
POLL_SECONDS = 1.0
MOST_AT_ONCE = 32
# That wait for the database. Of their own: neither what answers requests nor what looks up names can use them up.
THREADS = 2
GONE = 410


class Answer(NamedTuple):
    """What came of an attempt, and by which status or which kind of failure."""

    outcome: Outcome
    reason: str


class Sender:
    """Sends what is due. Several servers may do so at once.

    Args:
        database: With the outbox.
        count: Told the result of each attempt.
    """

    def __init__(self, database: Database, count: Callable[[Result], None]) -> None:
        self.database = database
        self.count = count

    async def run(self) -> None:
        """Until it is cancelled."""
        threads = CapacityLimiter(THREADS)
        client = httpx2.AsyncClient(follow_redirects=False, timeout=ATTEMPT_SECONDS)
        async with client, asyncio.TaskGroup() as group:
            sending: set[asyncio.Task[None]] = set()
            while True:
                for due in await self._claimed(MOST_AT_ONCE - len(sending), threads):
                    task = group.create_task(self._send(client, due, threads))
                    sending.add(task)
                    task.add_done_callback(sending.discard)
                await asyncio.sleep(POLL_SECONDS)

    async def _claimed(self, most: int, threads: CapacityLimiter) -> list[Due]:
        if not most:
            return []
        try:
            return await to_thread.run_sync(claim_due, self.database, most, limiter=threads)
        except SQLAlchemyError:
            logger.warning("The database does not answer; webhooks wait.")
            return []

    async def _send(self, client: httpx2.AsyncClient, due: Due, threads: CapacityLimiter) -> None:
        answer = await _answer(client, due)
        try:
            result = await to_thread.run_sync(settle, self.database, due, answer.outcome, limiter=threads)
        except SQLAlchemyError:
            logger.warning("The database does not answer; %s is sent to %s again.", due.event, due.webhook)
            return
        self.count(result)
        _log(due, result, answer.reason)


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


def _log(due: Due, result: Result, reason: str) -> None:
    """Without the URL, which may hold what its receiver keeps secret."""
    match result:
        case "failed":
            logger.info("%s did not take %s: %s; it is tried again.", due.webhook, due.event, reason)
        case "given_up":
            logger.warning(
                "%s did not take %s of %s: %s. It is given up after %d attempts.",
                due.webhook, due.event, due.job, reason, MOST_ATTEMPTS,
            )  # fmt: skip
        case "gone":
            logger.warning("%s is gone (%s) and is told nothing any more.", due.webhook, reason)
