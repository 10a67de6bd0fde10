"""Every error becomes an answer in the wire format, and none shows what is inside."""

import logging
import traceback
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException

from antibody.service.api.gate import headers_of, unavailable
from antibody.service.storage.blobs import TooLargeError
from antibody.service.wire.base import ErrorResponse
from antibody.service.wire.errors import ApiError

logger = logging.getLogger(__name__)

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
    }.items()
}


def add_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(DBAPIError, _database)
    app.add_exception_handler(TooLargeError, _too_large)
    app.add_exception_handler(OSError, _storage)


def answer(error: ApiError) -> JSONResponse:
    return JSONResponse(error.body.model_dump(), error.status, headers_of(error))


async def _api_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return answer(error)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return answer(ApiError(400, "The body is not JSON.", code="invalid_json"))
    path = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
    param = ".".join(part for part in path if not part.startswith(("function-", "constrained-", "list[")))
    if first["type"] == "extra_forbidden":
        return answer(ApiError(400, f"There is no parameter {param[:100]!r}.", code="unknown_parameter", param=param))
    return answer(ApiError(400, f"{param or 'The body'}: {first['msg']}.", code="invalid_value", param=param or None))


async def _http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    response = answer(ApiError(error.status_code, str(error.detail), code="invalid_request"))
    response.headers.update(error.headers or {})
    return response


async def _database(_: Request, error: Exception) -> JSONResponse:
    _log("The database failed", error)
    return answer(unavailable())


async def _too_large(_: Request, error: Exception) -> JSONResponse:
    return answer(ApiError(413, "The file is larger than allowed.", code="file_too_large", param="file"))


async def _storage(_: Request, error: Exception) -> JSONResponse:
    _log("Storage failed", error)
    return answer(
        ApiError(503, "The service's storage does not answer, or is full.", code="unavailable", kind="server_error")
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
