"""Task `gsm8k`: school arithmetic with worked answers (Cobbe et al. 2021), graded by the final number.

The number is read as lm-evaluation-harness reads it (`lm_eval/tasks/gsm8k/gsm8k.yaml`, version 3.0): ``strict-match``
is the first number after ``####``, ``flexible-extract`` the last number anywhere. The harness reports both; here one is
graded: strict where there is one, because a small model often goes on after its answer, otherwise flexible.
The patterns are narrower than the harness': two or more of ``$``, ``.`` and ``,`` are no number, a comma separates
thousands only before three digits, and the minus of ``10-5`` is no sign.
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

HINT = 'Write rows as {"instruction": "...", "output": "... #### 42"}.'

_NUMBER = (
    r"(?:(?<![\w)\]%])(?P<sign>[-+\u2212]))?\$?"
    r"(?P<digits>[0-9]+(?:,[0-9]{3}(?![0-9]))*(?:\.[0-9]+)?|(?<![\w.])\.[0-9]+)"
)
_FLEXIBLE = re.compile(_NUMBER)
# The harness takes no dollar sign here.
_STRICT = re.compile(rf"####[ \t]*\$?{_NUMBER}")


def final_number(answer: str) -> str | None:
    """The final number of `answer`, written plainly ("1080", "-2.5"); None if there is none.

    It is the first one after ``####``; without such a one, the last one in the answer.
    """
    found = _STRICT.search(answer) or next(reversed([*_FLEXIBLE.finditer(answer)]), None)
    if found is None:
        return None
    number = Decimal(found["digits"].replace(",", ""))
    if found["sign"] in ("-", "\u2212"):
        number = number.copy_negate()
    if not number:
        return "0"
    # Not normalize(), which would round to 28 digits.
    plain = f"{number:f}"
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


@dataclass(frozen=True)
class Gsm8kTask:
    """Rows ``{"instruction": ..., "output": ...}``, one JSON object a line; the output ends in ``#### NUMBER``.

    Attributes:
        name: Name in `TASKS`.
        max_new_tokens: lm-evaluation-harness: its `gsm8k.yaml` sets no `max_gen_toks`, whose default is 256.
    """

    name: str = "gsm8k"
    max_new_tokens: int = 256

    def records(self, source: str | Path) -> list[Record]:
        """One record a row, the worked answer as the response.

        Raises:
            DataError: The file cannot be read, or a row is not one of GSM8K's. Names the line.
        """
        path, records = Path(source), []
        for line, row in read_rows(path, ["instruction", "output"], hint=HINT):
            final = _STRICT.search(row["output"])
            if final is None or row["output"][final.end() :].strip():
                raise DataError(
                    "The output does not end in its only `#### NUMBER`.",
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
