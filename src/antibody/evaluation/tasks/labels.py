"""Task `labels`: any file whose responses are short labels, such as "positive" or "Sci/Tech"."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from antibody.data.records import Record
from antibody.data.sources import load_records
from antibody.errors import DataError
from antibody.evaluation.tasks.task import Grade

# What small models write before a label: "Answer: positive", "The sentiment is **positive**".
_LEAD_IN = r"\W*(?:(?:the\s+)?(?:correct\s+)?(?:answer|label|sentiment|category|class|topic)\s*(?:is\b|:)?\W*)?"


def read_label(answer: str, labels: Sequence[str]) -> str | None:
    """The label that `answer` starts with, case aside; None if it starts with none.

    A choice that is only repeated ("positive or negative") is no answer.
    """
    # Longest first, so that "very positive" is not read as "very".
    names = "|".join(re.escape(label.strip()) for label in sorted(set(labels), key=len, reverse=True) if label.strip())
    if not names:
        return None
    # Not \b: a label may end in a sign, such as "C++".
    found = re.match(rf"{_LEAD_IN}({names})(?!\w)(?!\s*(?:or|/)\s*(?:{names})(?!\w))", answer, re.IGNORECASE)
    if found is None:
        return None
    return next(label for label in labels if label.strip().lower() == found.group(1).lower())


@dataclass(frozen=True)
class LabelsTask:
    """Grades by the label word at the start of the answer.

    Attributes:
        labels: The labels to tell apart; `fitted` reads them from the records.
        name: Name in `TASKS`.
        max_new_tokens: ASSUMPTION: 16 tokens hold a short lead-in and a label of a few words.
    """

    labels: tuple[str, ...] = ()
    name: str = "labels"
    max_new_tokens: int = 16

    def records(self, source: str | Path) -> list[Record]:
        """Of any source, in any of the formats that uploads come in, see `antibody.data.sources`."""
        return list(load_records(str(source)).records)

    def fitted(self, records: Sequence[Record]) -> "LabelsTask":
        """The same task with the labels that occur in `records`.

        Raises:
            DataError: A response is empty, so it is no label.
        """
        for record in records:
            if not record.response.strip():
                raise DataError(
                    "The response is empty, so there is no label to grade against.",
                    hint="Give every row its label, or remove the row.",
                    code="empty_label",
                    path=record.source or None,
                    line=record.line or None,
                )
        return replace(self, labels=tuple(dict.fromkeys(record.response.strip() for record in records)))

    def grade(self, answer: str, expected: str) -> Grade:
        """Right if the first label of the answer is `expected`, case aside. `expected` counts among the labels."""
        predicted = read_label(answer, (*self.labels, expected))
        correct = predicted is not None and predicted.strip().lower() == expected.strip().lower()
        return Grade(correct, predicted)
