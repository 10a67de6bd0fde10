"""What every request passes before any of it is parsed: its key, the rate of its key, and its size."""

import json
import re
import time
from collections.abc import Callable

from sqlalchemy.exc import DBAPIError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from antibody.service.policy import Limits, megabytes
from antibody.service.storage.database import Database
from antibody.service.storage.keys import Caller, KeyRing
from antibody.service.wire.errors import ApiError

PREFIX = "/v1/"
PARTS = re.compile(r"/v1/uploads/[^/]+/parts")
# For the other fields of a form.
FORM_BYTES = 2**16


class Gate:
    """ASGI middleware. Paths outside of `/v1/` need no key.

    Args:
        app: The application.
        database: Where the keys are.
        limits: The policy's.
        clock: Seconds, for the rate.
    """

    def __init__(
        self, app: ASGIApp, *, database: Database, limits: Limits, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.app = app
        self.keys = KeyRing(database)
        self.limits = limits
        self.clock = clock
        self.rates: dict[str, tuple[float, float]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            if scope["path"].startswith(PREFIX):
                caller = await self._caller(Headers(scope=scope))
                self._count(caller.key)
                scope.setdefault("state", {})["caller"] = caller
            limit = self._limit(scope["path"])
            _refuse_announced(Headers(scope=scope), limit)
        except ApiError as error:
            await _answer(error, send)
            return
        await self.app(scope, _limited(receive, limit), send)

    async def _caller(self, headers: Headers) -> Caller:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise ApiError(
                401, "Give a key: Authorization: Bearer KEY.", code="no_api_key", kind="authentication_error"
            )
        remembered = self.keys.remembered(key.strip())
        if remembered is not None:
            return remembered
        try:
            caller = await run_in_threadpool(self.keys.find, key.strip())
        except DBAPIError as error:
            raise unavailable() from error
        if caller is None:
            raise ApiError(401, "This is no valid key.", code="invalid_api_key", kind="authentication_error")
        return caller

    def _count(self, key: str) -> None:
        """A bucket that holds a minute's requests and fills steadily."""
        most, now = float(self.limits.requests_per_minute), self.clock()
        left, since = self.rates.get(key, (most, now))
        left = min(most, left + (now - since) * most / 60)
        if left < 1:
            raise ApiError(
                429,
                f"More than {self.limits.requests_per_minute} requests in a minute.",
                code="rate_limit_exceeded",
                kind="rate_limit_error",
                retry_after=max(1, round((1 - left) * 60 / most)),
            )
        self.rates[key] = (left - 1, now)

    def _limit(self, path: str) -> int:
        if path == "/v1/files":
            return megabytes(self.limits.file_megabytes) + FORM_BYTES
        if PARTS.fullmatch(path):
            return megabytes(self.limits.part_megabytes) + FORM_BYTES
        return round(self.limits.request_kilobytes * 1024)


def unavailable() -> ApiError:
    return ApiError(503, "The service's database does not answer. Try again.", code="unavailable", kind="server_error")


def too_large(limit: int) -> ApiError:
    return ApiError(413, f"The request is larger than {limit} bytes.", code="request_too_large")


def _refuse_announced(headers: Headers, limit: int) -> None:
    announced = headers.get("content-length", "0")
    # The server below has refused what is no number.
    if int(announced) > limit:
        raise too_large(limit)


def _limited(receive: Receive, limit: int) -> Receive:
    """Counts what comes, for a body whose size was not announced."""
    size = 0

    async def counted() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > limit:
            # This kind passes through the framework's own handling of a body that cannot be read.
            raise HTTPException(413, f"The request is larger than {limit} bytes.")
        return message

    return counted


async def _answer(error: ApiError, send: Send) -> None:
    body = json.dumps(error.body.model_dump()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.encode(), value.encode()) for name, value in headers_of(error).items()]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def headers_of(error: ApiError) -> dict[str, str]:
    headers = {}
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    elif error.status == 429:
        # A quota is not free again in the seconds that the client library would wait.
        headers["x-should-retry"] = "false"
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return headers
