"""Reading a named task's file: one JSON object a line, with the fields that the task needs."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from antibody.errors import DataError


class TaskRow(NamedTuple):
    """A line's number, from 1, and its object."""

    line: int
    fields: dict[str, Any]


def read_rows(path: Path, texts: Sequence[str], *, hint: str) -> Iterator[TaskRow]:
    """The rows of a file, each with the named fields as text that is not empty.

    Raises:
        DataError: The file cannot be read or is empty, or a row is not such an object. Names the line and the field.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            "The file cannot be read as UTF-8 text.",
            hint="Check the path, and that the file is JSON Lines.",
            code="unreadable_file",
            path=path,
        ) from error
    if not content.strip():
        raise DataError("The file has no rows.", hint="Give at least one row.", code="empty_file", path=path)
    # Not splitlines(): it would also break a row at a line separator inside a JSON string.
    for line, text in enumerate(content.split("\n"), start=1):
        if text.strip():
            yield TaskRow(line, _parsed(text, texts, path, line, hint))


def _parsed(text: str, texts: Sequence[str], path: Path, line: int, hint: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError("The line is not JSON.", hint=hint, code="bad_json", path=path, line=line) from error
    if not isinstance(row, dict):
        raise DataError("The line is not a JSON object.", hint=hint, code="bad_row", path=path, line=line)
    for field in texts:
        if not isinstance(row.get(field), str) or not row[field].strip():
            raise DataError(
                f"The {field} is missing or empty.", hint=hint, code="bad_field", path=path, line=line, field=field
            )
    return row
