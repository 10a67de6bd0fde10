"""The server's side of the answering process: begun when it is first needed, and anew after it died."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from typing import NamedTuple

from antibody.service.chat.protocol import Question, Reply, read_reply, to_line
from antibody.service.wire.errors import ApiError

# Errors that are the client's.
CLIENTS_FAULT = {"context_length_exceeded", "invalid_messages", "no_chat_template"}


class _Asked(NamedTuple):
    """A question that is answered or waits."""

    project: str
    replies: "asyncio.Queue[Reply]"


class ChatClient:
    """Puts questions to the answering process.

    Args:
        dtype: Of its models.
        device: Where they are.
        most_waiting: Questions of one project that may wait.
    """

    def __init__(self, dtype: str, device: str, most_waiting: int) -> None:
        self.arguments = ["-m", "antibody.service.chat.engine", dtype, device]
        self.most_waiting = most_waiting
        self.waiting: dict[str, _Asked] = {}
        self.process: asyncio.subprocess.Process | None = None
        self.listener: asyncio.Task[None] | None = None
        self.beginning = asyncio.Lock()

    async def ask(self, question: Question) -> AsyncIterator[Reply]:
        """The answer in pieces; the last has a finish reason.

        Raises:
            ApiError: Too many of the project wait, the chat does not suit the model, or there is no answer.
        """
        if sum(asked.project == question.project for asked in self.waiting.values()) >= self.most_waiting:
            raise ApiError(
                429,
                "Too many chats of the project wait for the model.",
                code="overloaded",
                kind="rate_limit_error",
                retry_after=5,
            )
        replies: asyncio.Queue[Reply] = asyncio.Queue()
        self.waiting[question.id] = _Asked(question.project, replies)
        ended = False
        try:
            await self._send(to_line(question))
            while not ended:
                reply = await replies.get()
                ended = reply.error is not None or reply.finish_reason is not None
                if reply.error is not None:
                    raise _refused(reply)
                yield reply
        finally:
            del self.waiting[question.id]
            if not ended:
                # The client went away.
                await asyncio.shield(self._cancel(question.id))

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            await self.process.wait()
        if self.listener is not None:
            await self.listener

    async def _send(self, line: str) -> None:
        async with self.beginning:
            if self.process is None or self.process.returncode is not None:
                self.process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    *self.arguments,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    limit=2**24,
                )
                self.listener = asyncio.create_task(self._listen(self.process))
            assert self.process.stdin is not None, "a pipe was asked for"
            # A process that just died is noticed by its listener.
            with contextlib.suppress(ConnectionError):
                self.process.stdin.write(line.encode())
                await self.process.stdin.drain()

    async def _cancel(self, question: str) -> None:
        if self.process is not None and self.process.returncode is None:
            await self._send(to_line({"cancel": question}))

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None, "a pipe was asked for"
        while line := await process.stdout.readline():
            reply = read_reply(line)
            if reply.id in self.waiting:
                self.waiting[reply.id].replies.put_nowait(reply)
        await process.wait()
        for question, asked in self.waiting.items():
            asked.replies.put_nowait(
                Reply(question, error="The model's process ended.", error_code="model_unavailable")
            )


def _refused(reply: Reply) -> ApiError:
    assert reply.error is not None, "only errors come here"
    if reply.error_code in CLIENTS_FAULT:
        return ApiError(400, reply.error, code=reply.error_code, param="messages")
    return ApiError(503, reply.error, code=reply.error_code, kind="server_error")
