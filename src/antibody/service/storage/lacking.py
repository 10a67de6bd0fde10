"""What the service lacked where something failed: space, or its storage, however that is said."""

import errno
import sqlite3
from collections.abc import Callable
from typing import Literal

from safetensors import SafetensorError
from sqlalchemy.exc import DBAPIError

from antibody.service.storage.blobs import UnreachableError

FULL = {errno.ENOSPC, errno.EDQUOT}
# PostgreSQL's `disk_full`.
SQLSTATE = "53100"

Lacking = Literal["disk", "blobs"]


def disk_is_full(error: BaseException | None) -> bool:
    """Looks through what led to the error, too."""
    return _led_to(error, _says_full)


def what_lacked(error: BaseException | None) -> Lacking | None:
    """What to wait for; None where waiting does not help."""
    if disk_is_full(error):
        return "disk"
    return "blobs" if _led_to(error, lambda each: isinstance(each, UnreachableError)) else None


def _led_to(error: BaseException | None, is_it: Callable[[BaseException], bool]) -> bool:
    while error is not None:
        if is_it(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _says_full(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in FULL
    if isinstance(error, DBAPIError):
        code = getattr(error.orig, "sqlite_errorcode", None)
        return code == sqlite3.SQLITE_FULL or getattr(error.orig, "sqlstate", None) == SQLSTATE
    if isinstance(error, SafetensorError):
        return f"os error {errno.ENOSPC}" in str(error)
    # How torch.save says it.
    return isinstance(error, RuntimeError) and "inline_container" in str(error)
