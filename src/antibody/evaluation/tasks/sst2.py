"""Task `sst2`: sentiment of film-review sentences (Socher et al. 2013; the GLUE form), graded by the label word."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from antibody.data.records import Record, chat_record
from antibody.errors import DataError
from antibody.evaluation.tasks.labels import read_label
from antibody.evaluation.tasks.task import Grade

LABELS = ("positive", "negative")


@dataclass(frozen=True)
class Sst2Task:
    """Rows ``{"sentence": ..., "label": "positive" | "negative"}``, one JSON object a line.

    Attributes:
        name: Name in `TASKS`.
        max_new_tokens: ASSUMPTION: 16 tokens hold a short lead-in and the label, as in task ``labels``.
    """

    name: str = "sst2"
    max_new_tokens: int = 16

    def prompt(self, row: Mapping[str, object]) -> str:
        """The question that is put to the model, in training and in evaluation."""
        return (
            "Classify the sentiment of this sentence as positive or negative. Answer with one word.\n"
            f"Sentence: {row['sentence']}"
        )

    def records(self, path: Path) -> list[Record]:
        """One record a row, its label as the response.

        Raises:
            DataError: The file cannot be read, or a row is not one of SST-2's. Names the line.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                "The file cannot be read as UTF-8 text.",
                hint="Check the path, and that the file is JSON Lines.",
                code="unreadable_file",
                path=path,
            ) from error
        records = []
        # Not splitlines(): it would also break a row at a line separator inside a JSON string.
        for line, content in enumerate(text.split("\n"), start=1):
            if content.strip():
                row = _parsed(content, path, line)
                records.append(
                    chat_record(self.prompt(row), str(row["label"]), id=f"row-{line}", line=line, source=path)
                )
        if not records:
            raise DataError("The file has no rows.", hint="Give at least one row.", code="empty_file", path=path)
        return records

    def fitted(self, records: Sequence[Record]) -> "Sst2Task":
        """Itself: its labels are known."""
        return self

    def grade(self, answer: str, expected: str) -> Grade:
        """Right if the answer starts with the expected label."""
        predicted = read_label(answer, LABELS)
        return Grade(predicted == expected, predicted)


def _parsed(content: str, path: Path, line: int) -> dict[str, object]:
    hint = 'Write rows as {"sentence": "...", "label": "positive"} with label "positive" or "negative".'
    try:
        row = json.loads(content)
    except json.JSONDecodeError as error:
        raise DataError("The line is not JSON.", hint=hint, code="bad_json", path=path, line=line) from error
    if not isinstance(row, dict):
        raise DataError("The line is not a JSON object.", hint=hint, code="bad_row", path=path, line=line)
    sentence = row.get("sentence")
    if not isinstance(sentence, str) or not sentence.strip():
        raise DataError(
            "The sentence is missing or empty.", hint=hint, code="bad_field", path=path, line=line, field="sentence"
        )
    if row.get("label") not in LABELS:
        raise DataError(
            "The label is neither `positive` nor `negative`.",
            hint=hint,
            code="bad_field",
            path=path,
            line=line,
            field="label",
        )
    return row
