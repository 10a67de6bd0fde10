"""Whether it was a full disk that something failed on, however that is said."""

import errno
import sqlite3

from safetensors import SafetensorError
from sqlalchemy.exc import DBAPIError

FULL = {errno.ENOSPC, errno.EDQUOT}
# PostgreSQL's `disk_full`.
SQLSTATE = "53100"


def disk_is_full(error: BaseException | None) -> bool:
    """Looks through what led to the error, too."""
    while error is not None:
        if _says_so(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _says_so(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in FULL
    if isinstance(error, DBAPIError):
        code = getattr(error.orig, "sqlite_errorcode", None)
        return code == sqlite3.SQLITE_FULL or getattr(error.orig, "sqlstate", None) == SQLSTATE
    if isinstance(error, SafetensorError):
        return f"os error {errno.ENOSPC}" in str(error)
    # How torch.save says it.
    return isinstance(error, RuntimeError) and "inline_container" in str(error)
