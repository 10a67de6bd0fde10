"""What a task is."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from antibody.data.records import Record


class Grade(NamedTuple):
    """One graded answer.

    Attributes:
        correct: Whether the answer is right.
        predicted: What was read from the answer; None where nothing could be read, which is wrong.
    """

    correct: bool
    predicted: str | None


class Task(Protocol):
    """A user's task: prompts, right answers and grading."""

    @property
    def name(self) -> str:
        """Name in `TASKS`."""

    @property
    def max_new_tokens(self) -> int:
        """Most tokens that a right answer needs."""

    def records(self, path: Path) -> list[Record]:
        """The records of a file. Raises `DataError` for a file or row that is not the task's."""

    def fitted(self, records: Sequence[Record]) -> "Task":
        """The task knowing what it must of the records to be graded, such as their set of labels."""

    def grade(self, answer: str, expected: str) -> Grade:
        """Grade one answer against a record's response."""
