"""Every error becomes an answer in the wire format, and none shows what is inside."""

import logging
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DataError, DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnectionError
from starlette.exceptions import HTTPException

from antibody.service.api.gate import headers_of, unavailable
from antibody.service.storage.blobs import TooLargeError
from antibody.service.storage.lacking import disk_is_full
from antibody.service.wire.base import ErrorResponse
from antibody.service.wire.errors import ApiError

logger = logging.getLogger(__name__)

# How pydantic names the branches of a union.
KINDS = {"int", "float", "str", "bool"}
MARKS = ("function-", "constrained-", "literal[", "list[")

# For the OpenAPI document: what any route may answer.
RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": description}
    for status, description in {
        400: "The request cannot be followed, or not in this state.",
        401: "No valid key.",
        403: "Not allowed.",
        404: "There is no such object, or it is another project's.",
        413: "Too large.",
        429: "Too often, or a quota is used up.",
        503: "Something that the service needs does not answer.",
        507: "The service's disk is full.",
    }.items()
}


def add_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(DBAPIError, _database)
    app.add_exception_handler(NoConnectionError, _database)
    app.add_exception_handler(DataError, _not_storable)
    app.add_exception_handler(UnicodeEncodeError, _not_storable)
    app.add_exception_handler(TooLargeError, _too_large)
    app.add_exception_handler(OSError, _storage)


def answer(error: ApiError) -> JSONResponse:
    return JSONResponse(error.body.model_dump(), error.status, headers_of(error))


async def _api_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return answer(error)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first, *others = error.errors()
    if first["type"] == "json_invalid":
        return answer(ApiError(400, "The body is not JSON.", code="invalid_json"))
    param = _parameter(first["loc"])
    if first["type"] == "extra_forbidden":
        return answer(ApiError(400, f"There is no parameter {param[:100]!r}.", code="unknown_parameter", param=param))
    # Of the kinds that a value could have been, the last one's reason is the most telling: `auto` comes first.
    reasons = [each["msg"] for each in (first, *others) if _parameter(each["loc"]) == param]
    return answer(ApiError(400, f"{param or 'The body'}: {reasons[-1]}.", code="invalid_value", param=param or None))


def _parameter(location: Sequence[int | str]) -> str:
    """The field's name, without what pydantic adds of the kinds that it tried."""
    parts = [str(part) for part in location[1:]]
    return ".".join(part for part in parts if part not in KINDS and not part.startswith(MARKS))


async def _http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if disk_is_full(error):
        # The framework takes every failure to read a form for the client's.
        return await _storage(_, error)
    response = answer(ApiError(error.status_code, str(error.detail), code="invalid_request"))
    response.headers.update(error.headers or {})
    return response


async def _database(_: Request, error: Exception) -> JSONResponse:
    _log("The database failed", error)
    return answer(_full() if disk_is_full(error) else unavailable())


async def _not_storable(_: Request, error: Exception) -> JSONResponse:
    return answer(
        ApiError(400, "A value holds characters that are no text, or a number too large.", code="invalid_value")
    )


async def _too_large(_: Request, error: Exception) -> JSONResponse:
    return answer(ApiError(413, "The file is larger than allowed.", code="file_too_large", param="file"))


async def _storage(_: Request, error: Exception) -> JSONResponse:
    _log("Storage failed", error)
    if disk_is_full(error):
        return answer(_full())
    return answer(ApiError(503, "The service's storage does not answer.", code="unavailable", kind="server_error"))


def _full() -> ApiError:
    return ApiError(
        507, "The service's disk is full. Nothing was kept; try again later.", code="disk_full", kind="server_error"
    )


def defect(error: Exception) -> JSONResponse:
    """For what nobody foresaw."""
    _log("A defect", error)
    return answer(ApiError(500, "The service failed.", code="internal_error", kind="server_error"))


def _log(what: str, error: Exception) -> None:
    """Without the message, which could hold what a user sent."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
    logger.error("%s: %s at %s", what, type(error).__name__, where)
