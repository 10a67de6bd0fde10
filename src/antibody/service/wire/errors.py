"""Errors that become an answer to the client."""

from antibody.service.wire.base import ErrorDetail, ErrorResponse

INVALID = "invalid_request_error"


class ApiError(Exception):
    """A refusal in the wire format.

    Args:
        status: HTTP status. The client library repeats 408, 409, 429 and 5xx, so a wrong state is 400.
        message: What is wrong and what to do, without any content of a file.
        code: A stable name.
        param: The parameter at fault.
        kind: The wire's ``type``.
        retry_after: Seconds after which it may be tried again; None where that does not help.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        kind: str = INVALID,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.body = ErrorResponse(error=ErrorDetail(message=message, type=kind, param=param, code=code))


def not_found(kind: str, identifier: str, *, param: str | None = None) -> ApiError:
    """The same for what never was and for what is another project's."""
    return ApiError(404, f"No such {kind}: {identifier[:100]!r}.", code=f"{kind}_not_found", param=param)
