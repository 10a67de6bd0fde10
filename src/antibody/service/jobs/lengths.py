"""Rows that are too long for the service, found before a job waits for a worker."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from antibody.data.records import Record
from antibody.data.tokenization import tokenize
from antibody.errors import DataError

# A token is at least a byte of text, and a template is taken to add no more tokens than these to a chat and to a turn.
# Where one adds more, a row too long may pass here; training refuses it in the same words.
OF_TEMPLATE = 256
OF_TURN = 16


def count_cut(records: Sequence[Record], model: str, max_length: int, refused: Callable[[DataError], None]) -> int:
    """Counts the tokens of those records that may have too many.

    Args:
        records: Of a file.
        model: What is trained: a run, or a base model's name.
        max_length: Most tokens of prompt and response together.
        refused: Called for each record that leaves nothing to train on.

    Returns:
        How many answers are cut.

    Raises:
        ModelError: The tokenizer cannot be loaded, or cannot read chats.
    """
    cut = 0
    for record in records:
        if _most_tokens(record) <= max_length:
            continue
        try:
            cut += tokenize(record, _tokenizer(model), max_length=max_length).truncated
        except DataError as error:
            refused(error)
    return cut


def _most_tokens(record: Record) -> int:
    turns = [record.prompt] if isinstance(record.prompt, str) else [turn["content"] for turn in record.prompt]
    return OF_TEMPLATE + sum(OF_TURN + len(text.encode()) for text in (*turns, record.response))


@lru_cache(maxsize=8)
def _tokenizer(model: str) -> Any:
    # torch comes with it, which a worker whose rows are all short never needs.
    from antibody.models.run import Run, is_run  # noqa: PLC0415
    from antibody.models.tokenizer import load_tokenizer  # noqa: PLC0415

    if not is_run(model):
        return load_tokenizer(model)
    base = Run(Path(model)).manifest()["model"]
    return load_tokenizer(base["name"], revision=base["revision"])
