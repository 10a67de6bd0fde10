"""What a task is."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from antibody.data.records import Record


class Grade(NamedTuple):
    """One graded answer.

    Attributes:
        correct: Whether the answer is right, as a number where it may be so in part; NaN where a judge did not say.
        predicted: What was read from the answer; None where nothing could be read, which is wrong unless a judge did
            not say.
    """

    correct: float
    predicted: str | None


class AnsweredTask(Protocol):
    """What every task has."""

    @property
    def name(self) -> str:
        """Name in `TASKS`."""

    @property
    def max_new_tokens(self) -> int:
        """Most tokens that a right answer needs."""

    def records(self, source: str | Path) -> list[Record]:
        """The records of a file. Raises `DataError` for a file or row that is not the task's."""


class Task(AnsweredTask, Protocol):
    """A user's task: prompts, right answers and grading."""

    def fitted(self, records: Sequence[Record]) -> "Task":
        """The task knowing what it must of the records to be graded, such as their set of labels."""

    def grade(self, answer: str, expected: str) -> Grade:
        """Grade one answer against a record's response."""


@runtime_checkable
class JudgedTask(AnsweredTask, Protocol):
    """A task whose answers are graded together, by someone who reads the prompts too."""

    def graded(self, records: Sequence[Record], answers: Sequence[str]) -> list[Grade]:
        """One grade a record, in order. Raises `UsageError` or `ModelError` where the judge cannot be used."""
