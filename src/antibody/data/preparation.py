"""From records to the tokenised data set that a trainer reads."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from datasets import Dataset

from antibody.data.formats import parse
from antibody.data.records import Record
from antibody.data.tokenization import fitting, tokenize_records

logger = logging.getLogger(__name__)

PREPARED = "response_ids"


def prepare(
    records: Sequence[Record], tokenizer: Any, *, max_length: int, refusals: Sequence[str] | None = None
) -> Dataset:
    """Tokenises records, and with each the refusal it is compared with.

    A row is bound to its refusal by its position, "taken in turn" as published; so the pair is the same in every epoch
    and after every resume.

    Args:
        records: What to train on.
        tokenizer: A `transformers` tokenizer.
        max_length: Most tokens of prompt and response together.
        refusals: ``Y_r``; None where the rows are not compared with anything.

    Returns:
        Columns ``prompt_ids``, ``response_ids``, ``row`` (the record's index), ``harmful`` (1, 0, or -1 where unknown),
        ``truncated``, and ``refusal_ids`` where there are refusals.

    Raises:
        DataError: A record leaves nothing to train on.
        ModelError: The tokenizer cannot tell the response from the prompt.
    """
    rows = [
        {
            "prompt_ids": tokens.prompt_ids,
            "response_ids": tokens.response_ids,
            "row": index,
            "harmful": -1 if record.harmful is None else int(record.harmful),
            "truncated": tokens.truncated,
        }
        for index, (record, tokens) in enumerate(
            zip(records, tokenize_records(records, tokenizer, max_length), strict=True)
        )
    ]
    if refusals is not None:
        refused = [replace(record, response=refusals[index % len(refusals)]) for index, record in enumerate(records)]
        for row, tokens in zip(rows, tokenize_records(refused, tokenizer, max_length), strict=True):
            row["refusal_ids"] = tokens.response_ids
    return Dataset.from_list(rows)


def prepare_anchors(records: Sequence[Record], tokenizer: Any, *, max_length: int) -> Dataset:
    """As `prepare`, without those that are too long: a provider's rows may be longer than a user's.

    Raises:
        DataError: None of them fits.
    """
    kept = fitting(records, tokenizer, max_length)
    left_out = len(records) - len(kept)
    if kept and left_out:
        logger.warning("Left out at max_length=%d: %d of %d anchors.", max_length, left_out, len(records))
    return prepare(kept or records, tokenizer, max_length=max_length)


def records_of(dataset: Dataset, *, name: str) -> list[Record]:
    """The records of a data set as TRL takes it: ``messages``, or ``prompt`` and ``completion``.

    As in TRL, a prompt that is a plain string gets no chat template.

    Raises:
        DataError: A row must not be trained on; names the row.
    """
    return [record for line, row in enumerate(dataset, start=1) for record in _records(row, name, line)]


def _records(row: Mapping[str, Any], name: str, line: int) -> list[Record]:
    records = parse(dict(row), path=name, line=line)
    # A chat may have the field too, as a title.
    if isinstance(row.get("prompt"), str) and "messages" not in row:
        return [replace(record, prompt=record.request) for record in records]
    return records
