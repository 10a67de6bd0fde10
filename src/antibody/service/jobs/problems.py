"""What is wrong with a user's file, in the service's words: not where it is kept, and no option of a command line."""

import re
from collections.abc import Sequence

from antibody.errors import DataError
from antibody.service.wire.jobs import JobError

MOST_NAMED = 10
# Of errors whose own hint names an option that the service's users do not have.
HINTS = dict.fromkeys(
    ("prompt_fills_context", "response_truncated_to_nothing"),
    "Shorten the prompt. The limit is the service's; its provider can raise it (training.max_length of the policy).",
)


class Problems:
    """The first rows of a file that cannot be trained on, and how many there are."""

    def __init__(self) -> None:
        self.first: list[DataError] = []
        self.count = 0
        self.line: int | None = None

    def add(self, error: DataError) -> None:
        if self.count and error.line == self.line:
            # A row of several answers, of which one was named.
            return
        self.line = error.line
        self.count += 1
        if len(self.first) < MOST_NAMED:
            self.first.append(error)


def invalid_file(param: str, filename: str, errors: Sequence[DataError], count: int = 1) -> JobError:
    """A job's error.

    Args:
        param: ``training_file`` or ``validation_file``.
        filename: As its user named it.
        errors: Of the rows that are named, at least one.
        count: How many rows there are in all.
    """
    said: list[str] = []
    for error in errors:
        message = re.sub(re.escape(error.path or filename), lambda _: filename, error.message)
        hint = HINTS.get(error.code, error.hint)
        # Said once: many rows mostly have one mistake.
        said.append(message if any(line.endswith(hint) for line in said) else f"{message} {hint}")
    if count > 1:
        said.append(
            f"{count} rows cannot be trained on{f'; the first {len(errors)} are named' if count > len(errors) else ''}."
        )
    return JobError(code=f"invalid_{param}", message="\n".join(said), param=param)
