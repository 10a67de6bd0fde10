"""Task `gsm8k`: school arithmetic with worked answers (Cobbe et al. 2021), graded by the final number.

As in lm-evaluation-harness: the number after "####" (``strict-match``), else the last number (``flexible-extract``).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from antibody.data.records import Record, chat_record
from antibody.errors import DataError
from antibody.evaluation.tasks.rows import read_rows
from antibody.evaluation.tasks.task import Grade

_NUMBER = r"-?\$?\d[\d,]*(?:\.\d+)?"
HINT = 'Write rows as {"instruction": "...", "output": "... #### 42"}.'


def final_number(answer: str) -> str | None:
    """The number that an answer comes to, in its shortest form; None if it names none."""
    marked = re.findall(rf"####\s*({_NUMBER})", answer)
    numbers = marked or re.findall(_NUMBER, answer)
    if not numbers:
        return None
    value = Decimal(numbers[-1].replace("$", "").replace(",", ""))
    return str(int(value)) if value == value.to_integral_value() else str(value.normalize())


@dataclass(frozen=True)
class Gsm8kTask:
    """Rows ``{"instruction": ..., "output": ...}``, one JSON object a line; the output ends in ``#### NUMBER``.

    Attributes:
        name: Name in `TASKS`.
        max_new_tokens: ASSUMPTION: 256 tokens hold nearly every worked answer.
    """

    name: str = "gsm8k"
    max_new_tokens: int = 256

    def records(self, path: Path) -> list[Record]:
        """One record a row, the worked answer as the response.

        Raises:
            DataError: The file cannot be read, or a row is not one of GSM8K's. Names the line.
        """
        records = []
        for line, row in read_rows(path, ["instruction", "output"], hint=HINT):
            if re.search(rf"####\s*{_NUMBER}", row["output"]) is None:
                raise DataError(
                    "The output names no final number.",
                    hint=HINT,
                    code="bad_field",
                    path=path,
                    line=line,
                    field="output",
                )
            records.append(chat_record(row["instruction"], row["output"], id=f"row-{line}", line=line, source=path))
        return records

    def fitted(self, records: Sequence[Record]) -> "Gsm8kTask":
        """Itself: there is nothing to know of the records."""
        return self

    def grade(self, answer: str, expected: str) -> Grade:
        """Right if the answer comes to the expected answer's number."""
        predicted = final_number(answer)
        return Grade(predicted is not None and predicted == final_number(expected), predicted)
