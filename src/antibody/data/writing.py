"""Writing records as JSONL that `antibody.data.reading` reads back."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from antibody.data.records import Record
from antibody.files import write_jsonl


def write_records(path: Path, records: Sequence[Record]) -> None:
    """Write one row a record. Read back, each has the same turns, response, id, label and category."""
    write_jsonl(path, [_row(record) for record in records])


def _row(record: Record) -> dict[str, Any]:
    """A row of the format ``prompt-response``.

    A single question is written as a string; so is a plain prompt, which is therefore read back as a chat. Any other
    chat is a list of turns, of which only the response is trained on.
    """
    alone = isinstance(record.prompt, str) or [turn["role"] for turn in record.prompt] == ["user"]
    row = {
        "id": record.id,
        "prompt": record.request if alone else list(record.prompt),
        "response": record.response if alone else [{"role": "assistant", "content": record.response}],
        "harmful": record.harmful,
        "category": record.category,
    }
    return {key: value for key, value in row.items() if value is not None}
