"""A named classification task: a text, a question, one of a few labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from antibody.data.records import Record, chat_record
from antibody.errors import DataError
from antibody.evaluation.tasks.labels import read_label
from antibody.evaluation.tasks.rows import read_rows
from antibody.evaluation.tasks.task import Grade


@dataclass(frozen=True)
class ClassificationTask:
    """Rows ``{TEXT: ..., "label": ...}``, one JSON object a line.

    Attributes:
        name: Name in `TASKS`.
        text: The field that holds the text.
        labels: The labels to tell apart.
        question: What is asked before the text.
        heading: What stands before the text itself.
        max_new_tokens: ASSUMPTION: 16 tokens hold a short lead-in and the label, as in task ``labels``.
    """

    name: str
    text: str
    labels: tuple[str, ...]
    question: str
    heading: str
    max_new_tokens: int = 16

    def prompt(self, row: Mapping[str, object]) -> str:
        """The question that is put to the model, in training and in evaluation."""
        return f"{self.question}\n{self.heading}: {row[self.text]}"

    def records(self, source: str | Path) -> list[Record]:
        """One record a row, its label as the response.

        Raises:
            DataError: The file cannot be read, or a row is not one of the task's. Names the line.
        """
        path = Path(source)
        named = " or ".join(f'"{label}"' for label in self.labels)
        hint = f'Write rows as {{"{self.text}": "...", "label": "{self.labels[0]}"}} with label {named}.'
        records = []
        for line, row in read_rows(path, [self.text], hint=hint):
            if row.get("label") not in self.labels:
                neither = " nor ".join(f"`{label}`" for label in self.labels)
                raise DataError(
                    f"The label is neither {neither}.", hint=hint, code="bad_field", path=path, line=line, field="label"
                )
            records.append(chat_record(self.prompt(row), str(row["label"]), id=f"row-{line}", line=line, source=path))
        return records

    def fitted(self, records: Sequence[Record]) -> "ClassificationTask":
        """Itself: its labels are known."""
        return self

    def grade(self, answer: str, expected: str) -> Grade:
        """Right if the answer starts with the expected label."""
        predicted = read_label(answer, self.labels)
        return Grade(predicted == expected, predicted)
